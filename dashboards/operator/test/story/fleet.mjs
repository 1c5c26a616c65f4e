// Logging in, the fleet's table, a box's page.
import assert from "node:assert/strict";

/** The row of the table `label` that says `text`. */
export const row = (page, label, text) => page.getByRole("region", { name: label, exact: true }).getByRole("row").filter({ hasText: text });

/** Waits until `probe` yields something true. */
export async function until(what, probe, ms = 15_000) {
  const end = Date.now() + ms;
  for (let seen; ; ) {
    seen = await probe();
    if (seen) return seen;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await new Promise((again) => setTimeout(again, 50));
  }
}

/** Presses "Show more" until there is no more. */
async function showAll(part, items) {
  const more = part.getByRole("button", { name: "Show more" });
  for (let held = await items.count(); await more.isVisible(); held = await items.count()) {
    await more.click();
    await until("more items", async () => (await items.count()) > held || !(await more.isVisible()));
  }
}

export async function logIn({ page, stage, shot }) {
  await page.goto(stage.url);
  await page.getByLabel("Name", { exact: true }).waitFor();
  await page.keyboard.type(stage.name);
  await page.keyboard.press("Tab");
  await page.keyboard.type("not the password");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("Wrong name or password.").waitFor();
  await shot("01-wrong-password");
  await page.keyboard.press("Control+A");
  await page.keyboard.type(stage.password);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Fleet" }).waitFor();
}

export async function table({ page, stage, shot }) {
  const box = row(page, "Boxes", stage.box_id);
  for (const text of ["online", "active"]) await box.getByText(text, { exact: true }).waitFor();
  await page.getByText("1 box, 1 online").waitFor();
  await page.getByText("live", { exact: true }).waitFor();
  await shot("02-fleet");
  const seen = () => box.getByRole("cell").last().locator("time").getAttribute("datetime");
  const before = await seen();
  await until("the table to move by itself", async () => (await seen()) !== before);

  await page.getByLabel("Search boxes").fill("nowhere");
  await page.getByText("Nothing found").waitFor();
  await shot("03-fleet-nothing-found");
  await page.getByLabel("Search boxes").fill(stage.box_id.slice(0, 6));
  await box.waitFor();

  await page.goto(`${stage.url}/#/boxes/0123456789AB`);
  await page.getByRole("alert").waitFor();
  await shot("04-no-such-box");
  await page.getByRole("link", { name: "Fleet", exact: true }).click();
  await page.getByRole("link", { name: stage.box_id }).click();
}

export async function box({ page, stage, shot }) {
  await page.getByRole("heading", { name: stage.box_id }).waitFor();
  const part = (name) => page.getByRole("region", { name, exact: true });
  await part("Connection").waitFor();
  assert.equal(await part("Connection").getByText("ok", { exact: true }).count(), 10, "every rung holds");
  assert.equal(await part("Connection").locator("time").count(), 10, "every rung says since when");

  await page.getByRole("button", { name: "Describe…" }).click();
  await page.getByLabel("Label", { exact: true }).fill("Pier 4, rack 2");
  await page.getByLabel("Site", { exact: true }).fill("Bremen");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("heading", { name: "Pier 4, rack 2" }).waitFor();

  // The newest is on top; what is at work now ends without a reading anew.
  const newest = part("Commands").getByRole("listitem").first();
  const told = async (button, kind) => {
    await part("Commands").getByRole("button", { name: button, exact: true }).click();
    await newest.filter({ hasText: kind }).getByText("done", { exact: true }).waitFor();
  };
  await told("Identify", "identify");
  await told("Report now", "report now");
  await part("Commands").getByLabel("Telemetry every").fill("1");
  await told("Set", "set telemetry interval");
  await part("Release").getByText("every 1 s").waitFor();

  // The demo has updated it, and tried a bad release.
  for (const text of ["Slot a", "Slot b", "rolled back"]) await part("Release").getByText(text, { exact: true }).waitFor();
  assert.equal(await part("Release").getByText("runs", { exact: true }).count(), 1, "one slot runs");
  await part("Release").getByText(/^ended on trial/).waitFor();

  const points = () => part("Telemetry").getByRole("img").getAttribute("data-points");
  const drawn = Number(await points());
  await until("the chart to grow", async () => Number(await points()) >= Math.max(drawn + 2, 5));
  for (const view of ["Memory", "Network", "Waiting", "Load"]) {
    await part("Telemetry").getByRole("button", { name: view, exact: true }).click();
    await part("Telemetry").getByRole("img", { name: `${view} over time` }).waitFor();
    if (view === "Network") await shot("05-box-network");
  }

  const transfers = part("Transfers").getByRole("listitem");
  const verified = Number.parseInt(await part("Transfers").getByText(/^\d+ objects verified/).textContent(), 10);
  assert.ok(verified >= 13, `${verified} objects`);
  await showAll(part("Transfers"), transfers);
  assert.equal(await transfers.count(), verified);

  const items = part("Timeline").locator(".line");
  await items.filter({ hasText: "was told to take a sample every 1 s" }).waitFor();
  await part("Timeline").getByText(/objects are safe in the cloud/).first().click();
  await shot("06-box");
  await showAll(part("Timeline"), items);
  const all = await items.allTextContents();
  const at = (text) => all.findLastIndex((item) => item.includes(text));
  assert.ok(at("was told to take a sample every 1 s") < at("is safe in the cloud"), "the newest stands first");
  assert.ok(at("is safe in the cloud") < at("came online"), "the oldest stands last");
  assert.ok(at("has a new certificate") > 0 && at("is safe on the box") > 0, all.join("\n"));
}
