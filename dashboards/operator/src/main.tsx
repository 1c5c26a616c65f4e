import { render } from "preact";
import { useEffect } from "preact/hooks";
import { Access } from "./access";
import { Alerts } from "./alerts";
import { call, get, may, me, told } from "./api";
import "./app.css";
import { Audit } from "./audit";
import { BoxPage } from "./box";
import { BringUpPage } from "./bringup";
import { BulkPage } from "./bulk";
import { Data } from "./data";
import { Fleet } from "./fleet";
import { live } from "./live";
import { LogIn } from "./login";
import { Mark } from "./marks";
import { OfflinePage } from "./offline";
import { OrderPage, Orders } from "./orders";
import { Password } from "./password";
import { Releases } from "./releases";
import { RolloutPage } from "./rollout";
import { route, type Route } from "./route";
import type { Me, Role } from "./types";

/** The pages in the bar, who may see them, and which places belong to them. */
const PAGES: readonly { name: string; href: string; role: Role; places: readonly Route["page"][] }[] = [
  { name: "Fleet", href: "#/", role: "customer", places: ["fleet", "box"] },
  { name: "Alerts", href: "#/alerts", role: "viewer", places: ["alerts"] },
  { name: "Data", href: "#/data", role: "customer", places: ["data"] },
  { name: "Orders", href: "#/orders", role: "customer", places: ["orders", "order"] },
  { name: "Releases", href: "#/releases", role: "viewer", places: ["releases", "rollout"] },
  { name: "Bring-up", href: "#/bring-up", role: "customer", places: ["bring-up"] },
  { name: "Box without a line", href: "#/offline", role: "customer", places: ["offline"] },
  { name: "Commands", href: "#/bulk", role: "viewer", places: ["bulk"] },
  { name: "Audit", href: "#/audit", role: "operator", places: ["audit"] },
  { name: "Access", href: "#/access", role: "admin", places: ["access"] },
];

function Bar() {
  const here = route.value.page;
  const leave = async () => {
    try {
      await call("DELETE", "/v1/session");
    } catch (error) {
      console.error(told(error));
      return;
    }
    me.value = null;
  };
  return (
    <header class="bar">
      <a class="brand" href="#/">
        <img src="/icon.svg" alt="" width="24" height="24" /> Longhaul
      </a>
      <nav aria-label="Pages">
        {PAGES.filter((page) => may(page.role)).map((page) => (
          <a key={page.name} href={page.href} aria-current={page.places.includes(here) ? "page" : undefined}>
            {page.name}
          </a>
        ))}
      </nav>
      <span class="who">
        {live.value !== undefined && <Mark kind={live.value ? "online" : "stale"} text={live.value ? "live" : "not live"} />}
        <a href="#/me" aria-current={here === "me" ? "page" : undefined} title="Your password">
          {me.value?.name}
        </a>
        <button onClick={leave}>Log out</button>
      </span>
    </header>
  );
}

function Place() {
  const where = route.value;
  useEffect(() => {
    const page = PAGES.find(({ places }) => places.includes(where.page))?.name ?? "You";
    document.title = `${"id" in where ? where.id : page} · Longhaul`;
  }, [where]);
  switch (where.page) {
    case "fleet":
      return <Fleet />;
    case "box":
      return <BoxPage key={where.id} id={where.id} />;
    case "data":
      return <Data bucket={where.bucket} prefix={where.prefix} />;
    case "bring-up":
      return <BringUpPage />;
    case "offline":
      return <OfflinePage />;
    case "bulk":
      return <BulkPage />;
    case "orders":
      return <Orders />;
    case "order":
      return <OrderPage key={where.id} id={where.id} />;
    case "releases":
      return <Releases />;
    case "rollout":
      return <RolloutPage key={where.id} id={where.id} />;
    case "alerts":
      return <Alerts />;
    case "audit":
      return <Audit />;
    case "access":
      return <Access />;
    case "me":
      return <Password />;
  }
}

function App() {
  useEffect(() => {
    get<Me>("/v1/me").then(
      (found) => {
        me.value = found;
      },
      () => {
        me.value = null;
      },
    );
  }, []);
  if (me.value === undefined) return <p class="quiet waiting">Longhaul…</p>;
  if (me.value === null) return <LogIn />;
  return (
    <>
      <Bar />
      <Place />
    </>
  );
}

const place = document.getElementById("app");
if (place !== null) render(<App />, place);
