// Quarantine, revocation, and how the pages look elsewhere.
import assert from "node:assert/strict";
import { row } from "./fleet.mjs";

const LABEL = "Pier 4, rack 2";

export async function quarantine({ page, shot }) {
  await page.getByRole("link", { name: "Fleet", exact: true }).click();
  await page.getByRole("link", { name: LABEL }).click();
  await page.getByRole("button", { name: "Quarantine…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Quarantine" }).click();
  const title = page.locator("main > .title").first();
  await title.getByText("quarantined", { exact: true }).waitFor();
  await page.getByText("A box that is quarantined gets no commands.").waitFor();
  assert.equal(await page.getByRole("button", { name: "Identify" }).count(), 0);
  await shot("50-quarantined");
  await page.getByRole("button", { name: "Release from quarantine…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Release" }).click();
  await title.getByText("active", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Identify" }).waitFor();
}

export async function looks({ page, stage, shot }) {
  const pages = {
    fleet: ["#/", { name: "Fleet" }],
    box: [`#/boxes/${stage.box_id}`, { name: LABEL }],
    data: [`#/data?bucket=${stage.bucket}&prefix=survey%2F`, { name: "Data" }],
    orders: ["#/orders", { name: "Orders" }],
    releases: ["#/releases", { name: "Releases" }],
    audit: ["#/audit", { name: "Audit" }],
    access: ["#/access", { name: "Operators" }],
  };
  const tour = async (look, names) => {
    for (const name of names) {
      const [hash, heading] = pages[name];
      await page.goto(`${stage.url}/${hash}`);
      await page.getByRole("heading", { ...heading, exact: true }).waitFor();
      await page.locator(".card").first().waitFor();
      await shot(`${look}-${name}`);
    }
  };
  await page.emulateMedia({ colorScheme: "dark" });
  await tour("60-dark", ["fleet", "box", "data"]);
  await page.emulateMedia({ colorScheme: "light" });
  const desk = page.viewportSize();
  await page.setViewportSize({ width: 390, height: 800 });
  await tour("61-phone", Object.keys(pages));
  await page.setViewportSize(desk);
}

export async function revoke({ page, stage, shot }) {
  await page.goto(`${stage.url}/#/boxes/${stage.box_id}`);
  await page.getByRole("button", { name: "Revoke…" }).click();
  const dialog = page.getByRole("dialog");
  const go = dialog.getByRole("button", { name: "Revoke" });
  await dialog.getByLabel(/^Type/).fill(stage.box_id.slice(1));
  assert.ok(await go.isDisabled(), "another box's name does not confirm");
  await dialog.getByLabel(/^Type/).fill(stage.box_id);
  await shot("70-revoke-dialog");
  const title = page.locator("main > .title").first();
  const begun = Date.now();
  await go.click();
  await title.getByText("offline", { exact: true }).waitFor();
  const took = Date.now() - begun;
  assert.ok(took < 1000, `it was shown offline after ${took} ms`);
  await title.getByText("revoked", { exact: true }).waitFor();
  await shot("71-revoked");
  await page.getByRole("link", { name: "Fleet", exact: true }).click();
  await row(page, "Boxes", stage.box_id).getByText("offline", { exact: true }).waitFor();
  await shot("72-fleet-revoked");
}

export async function logOut({ page }) {
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("button", { name: "Log in" }).waitFor();
  assert.deepEqual(await page.context().cookies(), [], "the session is gone");
}
