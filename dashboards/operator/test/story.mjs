// An operator's first visit, in a real browser against the real cloud: started by scripts/browser.sh.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const WAIT_MS = 20_000;
const work = mkdtempSync(join(tmpdir(), "longhaul-browser-"));
const data = join(work, "data");

/** Starts a cloud on free ports; answers its people's port and its first administrator. */
async function startCloud() {
  const any = "127.0.0.1:0";
  const listen = ["people", "boxes", "mqtt", "s3"].flatMap((port) => [`--listen-${port}`, any]);
  const cloud = spawn(process.env.LONGHAUL_CLOUD, ["--data", data, "--public-host", "localhost", ...listen], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const heard = { out: "", err: "" };
  cloud.stdout.on("data", (chunk) => (heard.out += chunk));
  cloud.stderr.on("data", (chunk) => (heard.err += chunk));
  const ready = join(data, "ready.json");
  const admin = /administrator: (\S+)\npassword: (\S+)\n/;
  const end = Date.now() + WAIT_MS;
  while (!(existsSync(ready) && admin.test(heard.out))) {
    if (cloud.exitCode !== null || Date.now() > end) {
      cloud.kill("SIGKILL");
      throw new Error(`the cloud did not become ready:\n${heard.err}`);
    }
    await new Promise((again) => setTimeout(again, 50));
  }
  const [, name, password] = admin.exec(heard.out);
  return { cloud, name, password, ready: JSON.parse(readFileSync(ready, "utf8")) };
}

/** A visit: what the operator does and sees. */
async function visit(page, { name, password, url }) {
  const shot = (file) => page.screenshot({ path: join(work, `${file}.png`) });
  await page.goto(url);

  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill("not the password");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("Wrong name or password.").waitFor();
  await shot("1-wrong-password");

  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "No boxes yet" }).waitFor();
  await page.getByText("live", { exact: true }).waitFor();
  await shot("2-fleet");

  await page.getByLabel("Search boxes").fill("nowhere");
  await page.getByText("Nothing found").waitFor();

  await page.getByRole("link", { name: "Data", exact: true }).click();
  await page.getByRole("heading", { name: /^No(thing here| buckets yet)$/ }).waitFor();
  await shot("3-data");

  await page.goto(`${url}/#/boxes/0123456789AB`);
  await page.getByRole("alert").waitFor();
  await shot("4-no-such-box");

  await page.reload();
  await page.getByRole("alert").waitFor();
  await page.emulateMedia({ colorScheme: "dark" });
  await page.getByRole("link", { name: "Fleet", exact: true }).click();
  await page.getByRole("heading", { name: "No boxes yet" }).waitFor();
  await shot("5-fleet-dark");

  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("button", { name: "Log in" }).waitFor();
}

const started = await startCloud();
let browser;
try {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
  const page = await browser.newPage({ ignoreHTTPSErrors: true, viewport: { width: 1200, height: 760 } });
  page.setDefaultTimeout(WAIT_MS);
  const refused = [];
  page.on("console", (message) => {
    if (/Content.Security.Policy/i.test(message.text())) refused.push(message.text());
  });
  page.on("pageerror", (error) => refused.push(String(error)));
  try {
    await visit(page, { name: started.name, password: started.password, url: started.ready.people_url });
  } catch (error) {
    await page.screenshot({ path: join(work, "failed.png") });
    throw error;
  }
  assert.deepEqual(refused, [], "scripts that failed, or what the content security policy refused");
  console.log(`the dashboard's story went as told; screenshots: ${work}`);
} catch (error) {
  console.error(`the dashboard's story failed; screenshots: ${work}`);
  throw error;
} finally {
  await browser?.close();
  const gone = once(started.cloud, "exit");
  if (started.cloud.exitCode === null) {
    started.cloud.kill("SIGTERM");
    const late = setTimeout(() => started.cloud.kill("SIGKILL"), WAIT_MS);
    await gone;
    clearTimeout(late);
  }
  rmSync(data, { recursive: true, force: true });
}
