// The real system, as `longhaul-demo` sets it up: cloud, software TPM, factory, a box that has enrolled,
// and files that have been delivered.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { promisify } from "node:util";

const START_MS = 120_000;
const STOP_MS = 30_000;
const run = promisify(execFile);

/** Starts the demo and waits until all of its steps have held. */
export async function startStage(programs, folder) {
  const place = (...path) => join(folder, "demo", ...path);
  const demo = spawn(
    join(programs, "longhaul-demo"),
    ["--any-ports", "--small-files", "12", "--large-mib", "3", "--folder", place()],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let said = "";
  for (const stream of [demo.stdout, demo.stderr]) stream.on("data", (chunk) => (said += chunk));
  const end = Date.now() + START_MS;
  while (!said.includes("Ctrl-C stops everything")) {
    if (demo.exitCode !== null || Date.now() > end) {
      demo.kill("SIGKILL");
      throw new Error(`the system does not stand:\n${said}`);
    }
    await new Promise((again) => setTimeout(again, 50));
  }
  const cloud = JSON.parse(readFileSync(place("cloud", "ready.json"), "utf8"));
  const ticket = JSON.parse(readFileSync(place("ticket.json"), "utf8"));
  const [, name, password] = /first administrator:\s+(\S+)\s+password:\s+(\S+)/.exec(readFileSync(place("log", "cloud.log"), "utf8"));
  return {
    url: cloud.people_url,
    root: readFileSync(cloud.root_pem),
    name,
    password,
    box_id: ticket.box_id,
    bucket: ticket.bucket,
    longhaul: join(programs, "longhaul"),
    factory: (...args) => run(join(programs, "longhaul-factory"), args),
    tufKeys: place("tuf-keys"),
    tuf: place("cloud", "tuf"),
    boxPage: place("box", "run", "page.json"),
    factoryLog: place("log", "factory-make.log"),
    async stop() {
      if (demo.exitCode !== null) return;
      const gone = once(demo, "exit");
      demo.kill("SIGINT");
      const late = setTimeout(() => demo.kill("SIGKILL"), STOP_MS);
      await gone;
      clearTimeout(late);
    },
  };
}

/** A customer's folder of a few files, each with its bytes. */
export function customerFolder(folder) {
  const files = new Map();
  for (const [name, length] of [["line 7/shot-1.seg", 70_000], ["line 7/shot-2.seg", 5], ["readme.txt", 40]]) {
    const bytes = Buffer.alloc(length, `${name} `);
    mkdirSync(join(folder, name, ".."), { recursive: true });
    writeFileSync(join(folder, name), bytes);
    files.set(name, bytes);
  }
  return files;
}

/** The customer's push with a ticket's file, until everything is safe in the cloud. */
export const push = (stage, ticket, prefix, folder) =>
  run(stage.longhaul, ["push", "--ticket", ticket, "--prefix", prefix, "--wait", "--json", folder]);

/** What the API answers a program with this token: status and body. */
export function asProgram(stage, token, path) {
  const options = { ca: stage.root, headers: { authorization: `Bearer ${token}` } };
  return new Promise((resolve, reject) => {
    const asked = request(stage.url + path, options, async (answer) => {
      let text = "";
      for await (const chunk of answer) text += chunk;
      resolve({ status: answer.statusCode, body: JSON.parse(text) });
    });
    asked.on("error", reject).end();
  });
}
