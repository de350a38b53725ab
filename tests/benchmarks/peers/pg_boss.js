// pg-boss: two processes, polling every half second (its shortest), 10,000 jobs to one call of a handler, which counts
// them one by one (8 at once for jobs of 1 ms). Keeps the row of a job, then archives it; a failure fails the whole call.
"use strict";
const PgBoss = require("pg-boss");
const { PAYLOAD, WORK_MS, begin, main, pause } = require("./protocol.js");

const make = (url) => new PgBoss({ connectionString: url, schedule: false, max: 5 });
let boss;
async function handle(jobs) {
  for (let index = 0; index < jobs.length; index += 8) {
    const some = jobs.slice(index, index + 8);
    await Promise.all(some.map(async () => { begin(); if (WORK_MS) await pause(WORK_MS); }));
  }
}
main({
  setup: async (url) => { boss = make(url); await boss.start(); await boss.createQueue("nothing"); },
  open: async (url) => { boss = make(url); boss.on("error", () => {}); await boss.start(); },
  one: () => boss.send("nothing", PAYLOAD),
  many: (count) => boss.insert(Array.from({ length: count }, () => ({ name: "nothing", data: PAYLOAD }))),
  work: async (url) => {
    boss = make(url);
    boss.on("error", () => {});
    await boss.start();
    await boss.work("nothing", { batchSize: 10000, pollingIntervalSeconds: 0.5 }, handle);
  },
});
