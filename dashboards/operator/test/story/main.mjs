// An operator's day, in a real browser against the real system: started by scripts/browser.sh.
import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import * as access from "./access.mjs";
import { boxPage } from "./boxpage.mjs";
import * as fleet from "./fleet.mjs";
import * as orders from "./orders.mjs";
import * as standing from "./standing.mjs";
import { startStage } from "./stage.mjs";

const WAIT_MS = 15_000;
const { CHROMIUM, LONGHAUL_PROGRAMS, LONGHAUL_SCREENSHOTS } = process.env;
/** What the browser logs as errors because the cloud refuses what the story asks for on purpose. */
const REFUSED = [
  { status: 401, path: "/v1/me" },
  { status: 401, path: "/v1/session" },
  { status: 404, path: "/v1/boxes/0123456789AB" },
  { status: 400, path: "/v1/orders" },
];

const CHAPTERS = {
  "log in with the keyboard": fleet.logIn,
  "the fleet is live": fleet.table,
  "a box from its plug to its last command": fleet.box,
  "an order, a ticket, a push": orders.order,
  "objects are found, downloaded, deleted": orders.data,
  "a ticket ends": orders.revoke,
  "a release is rolled out": orders.release,
  "operators and tokens": access.people,
  "a viewer sees and does nothing": access.viewer,
  "the audit has all of it": access.audit,
  "many boxes are told at once": standing.many,
  "two people erase a bucket": standing.erase,
  "held back and let in again": standing.quarantine,
  "in the dark, and on a phone": standing.looks,
  "the box's own page": boxPage,
  "thrown out": standing.revoke,
  "log out": standing.logOut,
};

/** A page that fails the story for what it logs, and for what it asks from elsewhere. */
function watch(page, url, wrong) {
  page.setDefaultTimeout(WAIT_MS);
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== url) wrong.push(`asked for ${request.url()}`);
  });
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    const { pathname } = new URL(message.location().url || url);
    const status = Number(/status of (\d+)/.exec(message.text())?.[1]);
    if (!REFUSED.some((known) => known.status === status && pathname.startsWith(known.path))) wrong.push(`${message.text()} (${pathname})`);
  });
  return page;
}

/** Takes a picture of the whole page, and sees that nothing sticks out of it to the right. */
async function shoot(page, name) {
  await page.screenshot({ path: join(LONGHAUL_SCREENSHOTS, `${name}.png`), fullPage: true });
  const [wide, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= inner, `${name} is ${wide} wide on a screen of ${inner}`);
}

rmSync(LONGHAUL_SCREENSHOTS, { recursive: true, force: true });
mkdirSync(LONGHAUL_SCREENSHOTS, { recursive: true });
const folder = join(tmpdir(), `longhaul-browser-${process.pid}`);
mkdirSync(folder);
let stage;
let browser;
try {
  const start = Date.now();
  stage = await startStage(LONGHAUL_PROGRAMS, folder);
  console.log(`${((Date.now() - start) / 1000).toFixed(1).padStart(6)} s  the system stands`);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
  const wrong = [];
  const visitor = async () => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, acceptDownloads: true, viewport: { width: 1200, height: 760 } });
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: stage.url });
    return watch(await context.newPage(), stage.url, wrong);
  };
  const page = await visitor();
  const story = { page, stage, folder, visitor, shot: (name, of = page) => shoot(of, name) };
  for (const [name, chapter] of Object.entries(CHAPTERS)) {
    const begun = Date.now();
    try {
      await chapter(story);
      assert.deepEqual(wrong, [], "what the browser complains of");
    } catch (error) {
      await page.screenshot({ path: join(LONGHAUL_SCREENSHOTS, "failed.png"), fullPage: true });
      throw new Error(`chapter "${name}" failed; see ${LONGHAUL_SCREENSHOTS}`, { cause: error });
    }
    console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${name}`);
  }
  console.log(`the dashboard's story went as told; screenshots: ${LONGHAUL_SCREENSHOTS}`);
} finally {
  await browser?.close();
  await stage?.stop();
  rmSync(folder, { recursive: true, force: true });
}
