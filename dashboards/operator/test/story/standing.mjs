// Quarantine, revocation, and how the pages look elsewhere.
import assert from "node:assert/strict";
import { row } from "./fleet.mjs";

const SECOND = { name: "sam", password: "another long enough password" };
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

/** A command for all that a filter finds: seen first, then sent. */
export async function many({ page, shot }) {
  await page.getByRole("link", { name: "Commands", exact: true }).click();
  await page.getByText("Nothing was sent to many boxes yet.").waitFor();
  await page.getByRole("button", { name: "Tell many boxes" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Boxes", { exact: true }).fill("site:Bremen and state:active");
  await dialog.getByLabel("Command", { exact: true }).selectOption("report_now");
  await dialog.getByRole("button", { name: "Look whom it reaches" }).click();
  await dialog.getByText("Bremen: 1").waitFor();
  const go = dialog.getByRole("button", { name: "Send", exact: true });
  assert.ok(await go.isDisabled(), "the number has to be typed");
  await dialog.getByLabel(/^Type/).fill("1");
  await shot("48-many");
  await go.click();
  const sent = page.getByRole("region", { name: "Sent" });
  await sent.getByText("1 done", { exact: true }).waitFor();
  await sent.getByRole("button", { name: "Boxes" }).click();
  await sent.getByRole("list", { name: "Boxes of the command" }).getByText("done", { exact: true }).waitFor();
  await shot("49-many-sent");
}

/** One operator proposes, another approves: a bucket's data are gone from the box. */
export async function erase({ page, stage, visitor, shot }) {
  await page.getByRole("link", { name: "Access", exact: true }).click();
  await page.getByRole("button", { name: "Add an operator" }).click();
  await page.getByLabel("Name", { exact: true }).fill(SECOND.name);
  await page.getByLabel("First password").fill(SECOND.password);
  await page.getByLabel("Role").selectOption("operator");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("region", { name: "Operators" }).getByText(SECOND.name, { exact: true }).waitFor();

  await page.goto(`${stage.url}/#/boxes/${stage.box_id}`);
  const propose = async () => {
    await page.getByRole("button", { name: "More…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Command", { exact: true }).selectOption("erase_bucket");
    await dialog.getByLabel("Bucket", { exact: true }).fill(stage.bucket);
    await dialog.getByLabel("Reason", { exact: true }).fill("The survey is over.");
    await dialog.getByRole("button", { name: "Propose" }).click();
  };
  const waits = (of) => of.getByRole("region", { name: "Waits for a second person" });
  await propose();
  await waits(page).getByText("The survey is over.").waitFor();
  assert.equal(await waits(page).getByRole("button", { name: "Approve…" }).count(), 0, "nobody approves their own");
  await shot("45-proposed");

  const second = await visitor();
  await second.goto(stage.url);
  await second.getByLabel("Name", { exact: true }).fill(SECOND.name);
  await second.getByLabel("Password").fill(SECOND.password);
  await second.getByRole("button", { name: "Log in" }).click();
  await second.getByRole("link", { name: LABEL }).click();
  await waits(second).getByRole("button", { name: "Refuse…" }).click();
  await second.getByLabel("Why not").fill("Ask the customer first.");
  await second.getByRole("dialog").getByRole("button", { name: "Refuse" }).click();
  await waits(page).waitFor({ state: "detached" });

  await propose();
  await waits(second).getByRole("button", { name: "Approve…" }).click();
  await second.getByLabel(/^Type/).fill(stage.bucket);
  await shot("46-approve", second);
  await second.getByRole("dialog").getByRole("button", { name: "Approve" }).click();
  const newest = page.getByRole("region", { name: "Commands", exact: true }).getByRole("listitem").first();
  await newest.filter({ hasText: "erase bucket" }).getByText("done", { exact: true }).waitFor();
  await newest.getByText(`approved by ${SECOND.name}`).waitFor();
  await page.getByText(`${stage.bucket} was erased on the box`).first().waitFor();
  await shot("47-erased");
  await second.context().close();
}

export async function looks({ page, stage, shot }) {
  const pages = {
    fleet: ["#/", { name: "Fleet" }],
    box: [`#/boxes/${stage.box_id}`, { name: LABEL }],
    data: [`#/data?bucket=${stage.bucket}&prefix=survey%2F`, { name: "Data" }],
    orders: ["#/orders", { name: "Orders" }],
    releases: ["#/releases", { name: "Releases" }],
    bringup: ["#/bring-up", { name: "Bring-up" }],
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
