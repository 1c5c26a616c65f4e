import { render } from "preact";
import { useEffect } from "preact/hooks";
import { call, get, me, told } from "./api";
import "./app.css";
import { BoxPage } from "./box";
import { Data } from "./data";
import { Fleet } from "./fleet";
import { live } from "./live";
import { LogIn } from "./login";
import { Mark } from "./marks";
import { route } from "./route";
import type { Me } from "./types";

function Bar() {
  const page = route.value.page;
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
        <a href="#/" aria-current={page === "data" ? undefined : "page"}>
          Fleet
        </a>
        <a href="#/data" aria-current={page === "data" ? "page" : undefined}>
          Data
        </a>
      </nav>
      <span class="grow" />
      {page !== "data" && <Mark kind={live.value ? "online" : "stale"} text={live.value ? "live" : "not live"} />}
      <span class="quiet">
        {me.value?.name} ({me.value?.role})
      </span>
      <button onClick={leave}>Log out</button>
    </header>
  );
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
  const where = route.value;
  return (
    <>
      <Bar />
      {where.page === "fleet" && <Fleet />}
      {where.page === "box" && <BoxPage key={where.id} id={where.id} />}
      {where.page === "data" && <Data bucket={where.bucket} prefix={where.prefix} />}
    </>
  );
}

const place = document.getElementById("app");
if (place !== null) render(<App />, place);
