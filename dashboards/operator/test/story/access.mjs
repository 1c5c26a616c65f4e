// Operators, tokens, the audit.
import assert from "node:assert/strict";
import { row, until } from "./fleet.mjs";
import { asProgram } from "./stage.mjs";

const VIEWER = { name: "vera", password: "a long enough password" };

export async function people({ page, stage, shot }) {
  await page.getByRole("link", { name: "Access", exact: true }).click();
  await page.getByRole("heading", { name: "No tokens yet" }).waitFor();
  await page.getByRole("button", { name: "Add an operator" }).click();
  await page.getByLabel("Name", { exact: true }).fill(VIEWER.name);
  await page.getByLabel("First password").fill(VIEWER.password);
  await shot("40-operator-dialog");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await row(page, "Operators", VIEWER.name).waitFor();

  await page.getByRole("button", { name: "Make a token" }).click();
  await page.getByLabel("Name", { exact: true }).fill("nightly report");
  await page.getByRole("button", { name: "Make", exact: true }).click();
  const secret = await page.locator(".secret").textContent();
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
  await shot("41-secret");
  await page.getByRole("button", { name: "I have kept it" }).click();
  // Shown once: not even the page's source has it any more.
  await page.getByText(secret).waitFor({ state: "detached" });
  assert.equal((await asProgram(stage, secret, "/v1/me")).body.role, "viewer");

  const token = row(page, "API tokens", "nightly report");
  await token.getByText("in 90 d").waitFor();
  await shot("42-access");
  await token.getByRole("button", { name: /^Revoke/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await token.getByText("revoked", { exact: true }).waitFor();
  assert.equal((await asProgram(stage, secret, "/v1/me")).status, 401);
}

export async function viewer({ stage, visitor, shot }) {
  const page = await visitor();
  await page.goto(stage.url);
  await page.getByLabel("Name", { exact: true }).fill(VIEWER.name);
  await page.getByLabel("Password").fill(VIEWER.password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("link", { name: "Pier 4, rack 2" }).click();
  await page.getByRole("region", { name: "Commands", exact: true }).waitFor();
  const buttons = await page.getByRole("main").getByRole("button").allTextContents();
  const looking = ["Load", "Memory", "Network", "Waiting", "Show more"];
  assert.deepEqual(buttons.filter((name) => !looking.includes(name)), [], "a viewer only looks");
  assert.equal(await page.getByRole("link", { name: "Access" }).count(), 0);

  await page.getByRole("link", { name: VIEWER.name }).click();
  await page.getByLabel("Password so far").fill("not the password");
  await page.getByLabel("New password").fill("another long password");
  await shot("43-password", page);
  await page.context().close();
}

export async function audit({ page, shot }) {
  await page.getByRole("link", { name: "Audit", exact: true }).click();
  const rows = page.getByRole("region", { name: "Audit" }).getByRole("row");
  await rows.filter({ hasText: "token.revoke" }).waitFor();
  for (const did of ["operator.create", "rollout.start", "ticket.revoke", "order.create", "box.update"]) {
    await rows.filter({ hasText: did }).first().waitFor();
  }
  await shot("44-audit");
  const more = page.getByRole("button", { name: "Show more" });
  if (await more.isVisible()) {
    await more.click();
    await until("all of the audit", async () => !(await more.isVisible()));
  }
  const numbers = (await rows.getByRole("rowheader").allTextContents()).map(Number);
  assert.deepEqual(numbers, numbers.map((_, i) => numbers.length - i), "nothing is missing, the newest stands first");
}
