// graphile-worker: two processes, 24 jobs at once each (8 for jobs of 1 ms), a local queue of 500 and completions
// collected for 5 ms: its documented settings for throughput. Deletes a job when it ends: keeps nothing.
"use strict";
const { runMigrations, makeWorkerUtils, run, Logger } = require("graphile-worker");
const { PAYLOAD, WORK_MS, begin, main, pause } = require("./protocol.js");

const logger = new Logger(() => () => {});
let utils;
main({
  setup: (url) => runMigrations({ connectionString: url, logger }),
  open: async (url) => { utils = await makeWorkerUtils({ connectionString: url, logger }); },
  one: () => utils.addJob("nothing", PAYLOAD),
  many: (count) => utils.addJobs(Array.from({ length: count }, () => ({ identifier: "nothing", payload: PAYLOAD }))),
  work: (url, concurrency) => run({
    logger,
    noHandleSignals: false,
    preset: {
      worker: {
        connectionString: url, concurrentJobs: concurrency, maxPoolSize: 10, pollInterval: 2000,
        localQueue: { size: WORK_MS ? concurrency * 2 : 500 }, completeJobBatchDelay: 5, failJobBatchDelay: 5,
      },
    },
    taskList: { nothing: async () => { begin(); if (WORK_MS) await pause(WORK_MS); } },
  }),
});
