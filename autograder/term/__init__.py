"""A course's weeks: schedule, roster, due dates, marks, the course grade."""
