// The box's own page, as a customer sees it: with the keyboard alone, on a phone, in the dark, and as axe-core reads it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import axe from "axe-core";
import { until } from "./fleet.mjs";

const PHONE = { width: 360, height: 740 };
const DESK = { width: 1000, height: 800 };
/** Refusals that the story asks for. */
const REFUSED = [403, 422];

/** What axe-core finds wrong with the page. */
async function wrongs(page) {
  // By the debugger, which the page's own policy does not bind.
  await page.evaluate(axe.source);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map((wrong) => `${wrong.id}: ${wrong.nodes.map((node) => node.html).join(" ")}`);
}

/** Presses Tab until what has the focus is `wanted`. */
async function tabTo(page, wanted) {
  for (let presses = 0; presses < 40; presses += 1) {
    await page.keyboard.press("Tab");
    if (await wanted.evaluate((element) => element === document.activeElement)) return;
  }
  assert.fail(`the keyboard does not reach ${wanted}`);
}

async function looks(page, name, shot) {
  for (const [width, size] of [["desk", DESK], ["phone", PHONE]]) {
    await page.setViewportSize(size);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await wrongs(page), [], `${name}, ${width}, ${colorScheme}`);
      await shot(`80-box-${name}-${width}-${colorScheme}`, page);
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
}

export async function boxPage({ page: dashboard, stage, shot }) {
  const { url } = JSON.parse(readFileSync(stage.boxPage, "utf8"));
  const claim = JSON.parse(readFileSync(stage.factoryLog, "utf8").match(/\{[^]*?\n\}/)[0]).claim_code;
  const context = await dashboard.context().browser().newContext({ viewport: DESK });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== url) wrong.push(`asked for ${request.url()}`);
  });
  page.on("console", (message) => {
    const status = Number(/status of (\d+)/.exec(message.text())?.[1]);
    if (["error", "warning"].includes(message.type()) && !REFUSED.includes(status)) wrong.push(message.text());
  });

  await page.goto(url);
  await page.getByRole("heading", { name: "Online", level: 1 }).waitFor();
  assert.equal(await page.locator("[aria-current=step]").count(), 1, "one step is the current one");
  assert.equal(await page.getByRole("list").first().getByRole("listitem").count(), 9, "the whole journey");
  await looks(page, "home", shot);

  // With the keyboard alone, and a form that is wrong.
  await tabTo(page, page.getByRole("link", { name: "Change network settings" }));
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Network settings", level: 1 }).waitFor();
  await looks(page, "form", shot);
  await tabTo(page, page.getByLabel("As the box was prepared"));
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  assert.ok(await page.getByLabel("The fixed address below").isChecked());
  await tabTo(page, page.getByLabel("Address (IPv4)"));
  await page.keyboard.type("192.168.1.400");
  await tabTo(page, page.getByLabel("Claim code"));
  await page.keyboard.type("0000");
  await page.keyboard.press("Enter");
  const alert = page.getByRole("alert");
  await alert.getByText("Address (IPv4): Write four numbers with dots").waitFor();
  const address = page.getByLabel("Address (IPv4)");
  assert.equal(await address.getAttribute("aria-invalid"), "true");
  assert.equal(await address.inputValue(), "192.168.1.400", "nothing that was typed is lost");
  assert.equal(await page.getByLabel("Claim code").inputValue(), "", "but the code");
  await looks(page, "wrong", shot);

  // A code that is not the box's changes nothing; the box's own does.
  await page.getByLabel("From your network (DHCP)").check();
  await page.getByLabel("HTTP proxy").fill("none");
  await page.getByLabel("Claim code").fill("0000-0000-0000-0000");
  await page.getByRole("button", { name: "Try these settings" }).click();
  await alert.getByText("not the code that is printed on the box").waitFor();
  await page.getByLabel("Claim code").fill(claim.toLowerCase());
  await page.getByRole("button", { name: "Try these settings" }).click();
  await page.getByRole("heading", { name: "The box tries the new settings" }).waitFor();
  await looks(page, "tried", shot);
  await page.getByRole("link", { name: "Back to the box" }).click();
  await page.getByText("In force: addresses by DHCP, no proxy.").waitFor();
  await page.getByRole("heading", { name: "Online", level: 1 }).waitFor();

  // The cloud knows what was done there, and that somebody had a wrong code.
  await dashboard.goto(`${stage.url}/#/boxes/${stage.box_id}`);
  await dashboard.getByText("network settings: kept").first().waitFor();
  await dashboard.getByText(/a wrong claim code came from 127\.0\.0\.1/).first().waitFor();
  await until("the box to be back", async () => (await dashboard.locator("main > .title").first().getByText("online", { exact: true }).count()) > 0);
  assert.deepEqual(wrong, [], "what the browser complains of");
  await context.close();
}
