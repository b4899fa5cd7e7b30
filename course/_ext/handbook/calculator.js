// Scores and points of one entry: the same arithmetic as autograder/scoring/scores.py, which a test compares it with.
"use strict";

// The score 0..1 of a figure: piecewise linear through the ramp's points, clamped at both ends.
function onRamp(ramp, value) {
  const rising = ramp.points[ramp.points.length - 1][0] > ramp.points[0][0];
  const along = (figure) => (rising ? 1 : -1) * (ramp.logarithmic ? Math.log(figure) : figure);
  const x = along(value);
  const points = ramp.points.map(([figure, score]) => [along(figure), score]);
  if (x <= points[0][0]) return 0;
  for (let i = 1; i < points.length; i++) {
    const [x0, s0] = points[i - 1], [x1, s1] = points[i];
    if (x <= x1) return s0 + ((s1 - s0) * (x - x0)) / (x1 - x0);
  }
  return points[points.length - 1][1];
}

// Two decimals as Python rounds them: an exact tie goes to the even neighbour.
function round2(x) {
  if (Number.isInteger(8 * x) && (8 * x) % 2 !== 0) {
    const low = Math.floor(100 * x);
    return (low % 2 === 0 ? low : low + 1) / 100;
  }
  return Number(x.toFixed(2));
}

// rules: {points, ramps, gates} of a track on one data set; figures: accuracy, speed, size in the ramps' units;
// gates: figures of the further gates. Innovation is a manual mark, 0 to 10, added to the total.
function olympicScore(rules, figures, quality, innovation, gates) {
  const ramp = rules.ramps.accuracy, [floor, gate] = [ramp.points[0][0], ramp.points[1][0]];
  const rising = ramp.points[ramp.points.length - 1][0] > floor;
  let share = Math.min(1, Math.max(0, (figures.accuracy - floor) / (gate - floor)));
  let passed = rising ? figures.accuracy >= gate : figures.accuracy < gate;
  for (const [name, least] of Object.entries(rules.gates)) {
    if (gates[name] < least) {
      passed = false;
      share = Math.min(share, Math.max(0, gates[name] / least));
    }
  }
  const scores = {};
  for (const [name, own] of Object.entries(rules.ramps)) {
    scores[name] = onRamp(own, figures[name]) * (name === "accuracy" ? 1 : share);
  }
  scores.quality = Math.min(1, Math.max(0, quality));
  const points = {};
  let total = 0;
  for (const name of Object.keys(scores)) {
    points[name] = round2(scores[name] * rules.points[name]);
    total += points[name];
  }
  return { scores, points, total: round2(total), composite: round2(round2(total) + innovation), passed, share };
}

if (typeof module !== "undefined") module.exports = { olympicScore, onRamp, round2 };

if (typeof document !== "undefined") {
  const all = JSON.parse(document.getElementById("calculator-rules").textContent);
  const form = document.getElementById("calculator-form");
  const field = (name) => form.elements[name];
  const units = {
    "share": ["Accuracy, %", 0.01], "points lost": ["Accuracy lost to the baseline, points", 0.01],
    "kept": ["Accuracy kept of the baseline's, %", 0.01], "bits/byte": ["Bits per byte", 1],
    "images/s": ["Images a second", 1], "tokens/s": ["Tokens a second", 1], "bytes": ["Model file, MB", 1e6],
  };

  const rulesNow = () => all[field("track").value][field("dataset").value];

  function ready() {  // labels, data sets and example figures of the chosen track
    const track = all[field("track").value];
    field("dataset").replaceChildren(...Object.keys(track).map((name) => new Option(name, name)));
    example();
  }

  function example() {
    const rules = rulesNow();
    for (const [name, ramp] of Object.entries(rules.ramps)) {
      const [text, scale] = units[ramp.unit];
      document.getElementById(`label-${name}`).textContent = text;
      field(name).value = Number((rules.example[name] / scale).toPrecision(4));
    }
    field("quality").value = rules.example.quality;
    const rubric = "rubric" in rules.gates;
    document.getElementById("row-rubric").hidden = !rubric;
    if (rubric) field("rubric").value = rules.example.rubric;
    show();
  }

  function show() {
    const rules = rulesNow(), out = document.getElementById("calculator-result");
    const figures = {};
    for (const [name, ramp] of Object.entries(rules.ramps)) {
      figures[name] = Number(field(name).value) * units[ramp.unit][1];
    }
    const quality = Number(field("quality").value), innovation = Number(field("innovation").value);
    const values = [...Object.values(figures), quality, innovation];
    const status = document.getElementById("calculator-status");
    if (!form.checkValidity() || !values.every(Number.isFinite) || !(figures.size > 0) || !(figures.speed > 0)) {
      status.textContent = "Every field needs a number; speed and size one above zero.";
      out.replaceChildren();
      return;
    }
    const gates = { rubric: Number(field("rubric").value), [rules.rate]: figures.speed };
    const done = olympicScore(rules, figures, quality, innovation, gates);
    const rows = Object.entries(done.points).map(([name, got]) => [name, done.scores[name].toFixed(3), got, rules.points[name]]);
    rows.push(["innovation", (innovation / rules.points.innovation).toFixed(3), round2(innovation), rules.points.innovation]);
    out.replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      row.forEach((text, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (!i) cell.scope = "row";
        cell.textContent = text;
        line.append(cell);
      });
      return line;
    }));
    const tooLarge = figures.size > rules.fileBytes;
    const gate = done.passed ? "The gate is passed."
      : `The gate is not passed; speed and size count ${(100 * done.share).toFixed(1)} %.`;
    status.textContent = tooLarge
      ? `INVALID: the file is over the limit of ${(rules.fileBytes / 1e6).toPrecision(3)} MB. Without the limit it would have ${done.composite.toFixed(2)} points of 100.`
      : `${done.composite.toFixed(2)} points of 100. ${gate}`;
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "track") ready();
    else if (event.target.name === "dataset") example();
    else show();
  });
  ready();
}
