// The protocol of adapter.py and board.py for peers that run on Node.
"use strict";
const fs = require("fs");
const path = require("path");

const PAYLOAD = { order_id: 123456, email: "someone@example.org", note: "x".repeat(40) };
const DIRECTORY = process.env.BENCH_BOARD;
const WORK_MS = Number(process.env.BENCH_WORK_MS || 0);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const now = () => process.hrtime.bigint();

const record = Buffer.alloc(24);
let file = null;
function begin() {
  const at = now();
  if (file === null) {
    file = fs.openSync(path.join(DIRECTORY, String(process.pid)), "w");
    record.writeBigInt64LE(at, 8);
  }
  record.writeBigInt64LE(record.readBigInt64LE(0) + 1n, 0);
  record.writeBigInt64LE(at, 16);
  fs.writeSync(file, record, 0, 24, 0);
}

function read() {
  let begun = 0n, last = 0n;
  for (const name of fs.readdirSync(DIRECTORY)) {
    const data = fs.readFileSync(path.join(DIRECTORY, name));
    if (data.length !== 24) continue;
    begun += data.readBigInt64LE(0);
    if (data.readBigInt64LE(16) > last) last = data.readBigInt64LE(16);
  }
  return { begun, last };
}

async function waitFor(begun, seconds) {
  const deadline = now() + BigInt(seconds) * 1000000000n;
  for (;;) {
    const state = read();
    if (state.begun >= begun) return state.last;
    if (now() > deadline) throw new Error("no worker started the job");
    await pause(0);
  }
}

async function repeat(step, count, seconds, size) {
  const began = now();
  let done = 0;
  while (done < count && Number(now() - began) / 1e9 < seconds) {
    const some = Math.min(size, count - done);
    await step(some);
    done += some;
  }
  return { count: done, seconds: Number(now() - began) / 1e9 };
}

async function latency(adapter, count, seconds) {
  const found = [];
  await waitFor(1n, 50);
  const began = now();
  while (found.length < count && Number(now() - began) / 1e9 < seconds) {
    await pause(50);
    const before = read().begun;
    const sent = now();
    await adapter.one();
    found.push(Number((await waitFor(before + 1n, 10)) - sent) / 1e6);
  }
  found.sort((a, b) => a - b);
  const at = (share) => found[Math.min(found.length - 1, Math.round(found.length * share))];
  return { count: found.length, p50: at(0.5), p95: at(0.95) };
}

async function main(adapter) {
  const [action, ...rest] = process.argv.slice(2);
  const options = { count: 1, seconds: 5, concurrency: 1 };
  for (let index = 0; index < rest.length; index += 2) options[rest[index].slice(2)] = rest[index + 1];
  const count = Number(options.count), seconds = Number(options.seconds);
  if (action === "setup") { await adapter.setup(options.url); process.exit(0); }
  if (action === "work") { await adapter.work(options.url, Number(options.concurrency)); return; }
  await adapter.open(options.url);
  await adapter.one();
  const size = Math.min(5000, Math.max(1, Math.floor(count / 8)));
  const answer = action === "one" ? await repeat(() => adapter.one(), count, seconds, 1)
    : action === "many" ? await repeat((some) => adapter.many(some), count, seconds, size)
    : await latency(adapter, count, seconds);
  console.log(JSON.stringify(answer));
  process.exit(0);
}

module.exports = { PAYLOAD, WORK_MS, begin, main, pause };
