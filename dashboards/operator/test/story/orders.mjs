// Orders and tickets, what is delivered with them, releases.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { row } from "./fleet.mjs";
import { customerFolder, push } from "./stage.mjs";

const BUCKET = "example-17";

export async function order({ page, stage, folder, shot }) {
  await page.getByRole("link", { name: "Orders", exact: true }).click();
  await page.getByRole("heading", { name: "No orders yet" }).waitFor();
  await shot("10-orders-empty");
  await page.getByRole("button", { name: "Add an order" }).click();
  await page.getByLabel("Order", { exact: true }).fill("ORDER-17");
  await page.getByLabel("Customer", { exact: true }).fill("Example Ltd");
  await page.getByLabel("Bucket", { exact: true }).fill("Not A Bucket");
  await page.getByLabel("Note", { exact: true }).fill("Two lines of survey data.\nReturn the box to Bremen.");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("alert").getByText(/cannot be a bucket/).waitFor();
  await shot("11-order-refused");
  await page.getByLabel("Bucket", { exact: true }).fill(BUCKET);
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("heading", { name: "ORDER-17" }).waitFor();
  await page.getByRole("heading", { name: "No tickets yet" }).waitFor();

  await page.getByRole("button", { name: "Make a ticket" }).click();
  await page.getByLabel("Box", { exact: true }).fill(stage.box_id);
  await shot("12-ticket-dialog");
  await page.getByRole("button", { name: "Make", exact: true }).click();
  const ticket = row(page, "Tickets", stage.box_id);
  await ticket.getByText("valid", { exact: true }).waitFor();
  await shot("13-order");
  const coming = page.waitForEvent("download");
  await ticket.getByRole("link", { name: /^Download/ }).click();
  const file = join(folder, "ticket.json");
  await (await coming).saveAs(file);
  const read = JSON.parse(readFileSync(file, "utf8"));
  assert.deepEqual([read.box_id, read.bucket, read.order], [stage.box_id, BUCKET, "ORDER-17"]);

  customerFolder(join(folder, "customer"));
  await push(stage, file, "run-7", join(folder, "customer"));
}

export async function data({ page, stage, folder, shot }) {
  await page.getByRole("link", { name: BUCKET }).click();
  await page.getByRole("link", { name: "run-7/" }).click();
  const object = row(page, "Objects", "readme.txt");
  await object.getByText("verified", { exact: true }).waitFor();
  await page.getByRole("link", { name: "line 7/" }).waitFor();
  await object.getByRole("link", { name: stage.box_id }).waitFor();
  await shot("20-data");

  await page.getByRole("link", { name: "line 7/" }).click();
  const shotOne = page.getByRole("link", { name: "shot-1.seg" });
  const coming = page.waitForEvent("download");
  await shotOne.click();
  const path = join(folder, "downloaded");
  await (await coming).saveAs(path);
  assert.ok(readFileSync(path).equals(readFileSync(join(folder, "customer/line 7/shot-1.seg"))), "the bytes that were pushed");

  await page.getByRole("button", { name: "Delete run-7/line 7/shot-1.seg" }).click();
  await shot("21-delete-dialog");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await shotOne.waitFor();
  await page.getByRole("button", { name: "Delete run-7/line 7/shot-1.seg" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await shotOne.waitFor({ state: "detached" });
  await page.getByRole("link", { name: "shot-2.seg" }).waitFor();

  await page.getByLabel("Bucket", { exact: true }).selectOption(stage.bucket);
  await page.getByRole("link", { name: "survey/" }).waitFor();
}

export async function revoke({ page, stage, shot }) {
  await page.getByRole("link", { name: "Orders", exact: true }).click();
  const ticket = row(page, "Tickets", "ORDER-17");
  await ticket.getByRole("button", { name: /^Revoke/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await ticket.getByText("revoked", { exact: true }).waitFor();
  assert.equal(await ticket.getByRole("link", { name: /^Download/ }).count(), 0, "what has ended is not handed out");
  await row(page, "Tickets", stage.bucket).getByText("valid", { exact: true }).waitFor();
  await shot("14-orders");
}

export async function release({ page, stage, folder, shot }) {
  await page.getByRole("link", { name: "Releases", exact: true }).click();
  await row(page, "Rollouts", "1.1.0").getByRole("link").click();
  await row(page, "Boxes", stage.box_id).getByText("committed", { exact: true }).waitFor();
  await page.goBack();
  await row(page, "Releases", "1.1.0").waitFor();
  await shot("30-releases");
  const program = join(folder, "longhaul-box-9.9.9");
  writeFileSync(program, "#!/bin/sh\necho 'this machine is not known' >&2\nexit 9\n", { mode: 0o755 });
  await stage.factory("tuf", "add", "--keys", stage.tufKeys, "--repository", stage.tuf, "--version", "9.9.9", program);
  await page.reload();
  await page.getByRole("button", { name: "Roll out 9.9.9" }).click();
  const form = page.getByRole("region", { name: "Roll out 9.9.9" });
  await form.getByRole("checkbox").check();
  await form.getByRole("button", { name: "Roll out to 1 box…" }).click();
  const dialog = page.getByRole("dialog");
  const go = dialog.getByRole("button", { name: "Roll out" });
  assert.ok(await go.isDisabled(), "the number has to be typed");
  await shot("31-rollout-dialog");
  await dialog.getByLabel("Type 1 to confirm").fill("1");
  await go.click();

  await page.getByRole("heading", { name: "Rollout of 9.9.9" }).waitFor();
  const box = row(page, "Boxes", stage.box_id);
  await box.getByText("rolled back", { exact: true }).waitFor({ timeout: 60_000 });
  const reason = await box.getByRole("cell").last().textContent();
  assert.match(reason, /this machine is not known/);
  await shot("32-rollout");
  await box.getByRole("link", { name: stage.box_id }).click();
  await page.getByRole("region", { name: "Release", exact: true }).getByText(reason).waitFor();
  await page.getByRole("link", { name: "Releases", exact: true }).click();
  await row(page, "Rollouts", "9.9.9").waitFor();
  await shot("33-releases");
}
