// How the search orders what it finds: guides before lessons, those before the reference, autograder's last.
// The figures below `score` are Sphinx's own, which a scorer has to repeat.
const ORDER = [
  [/^(start|student\/|instructor\/(?!machine))/, 5],
  [/^lessons\//, 6],
  [/^changelog$/, -12],
  [/^api\/autograder/, -10],
  [/^api\/commands$/, 1],
];
var Scorer = {
  score: ([page, , , , score]) => score + (ORDER.find(([pattern]) => pattern.test(page)) ?? [null, 0])[1],
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
