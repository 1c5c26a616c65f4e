import { useEffect, useState } from "preact/hooks";
import { call, get, may, told } from "./api";
import { Ask, Field } from "./dialog";
import { useAct } from "./hooks";
import { Mark, Trouble } from "./marks";
import type { NetworkAnswers, OrderNetwork } from "./types";

const QUESTIONS = { address: "Address", vlan: "VLAN", proxy: "Proxy", dot1x: "802.1X", egress: "Ways out" } as const;
type Question = keyof typeof QUESTIONS;

/** An answer as a person says it. */
export function answer(question: Question, answers: NetworkAnswers): string | undefined {
  const value = answers[question];
  if (value == null) return undefined;
  switch (question) {
    case "address": {
      const { address } = answers;
      if (address == null || address.kind === "dhcp") return "the network gives it one (DHCP)";
      const more = [address.gateway && `gateway ${address.gateway}`, address.dns?.length ? `DNS ${address.dns.join(", ")}` : ""];
      return [`${address.address}/${address.prefix_len}`, ...more].filter(Boolean).join(", ");
    }
    case "vlan":
      return value === 0 ? "none" : String(value);
    case "proxy":
      return value === "" ? "none" : String(value);
    case "dot1x":
      return value === true ? "yes" : "no";
    case "egress":
      return (answers.egress ?? []).map((way) => `${way.host}:${way.port}`).join(", ");
  }
}

/** The network that an order's boxes go to: what people say of it, and what a probe found. */
export function NetworkCard({ order }: { order: string }) {
  const path = `/v1/orders/${encodeURIComponent(order)}`;
  const [network, setNetwork] = useState<OrderNetwork>();
  const [trouble, setTrouble] = useState<string>();
  const [asked, setAsked] = useState(false);
  const act = useAct();
  useEffect(() => {
    get<OrderNetwork>(`${path}/network`).then(setNetwork, (error: unknown) => setTrouble(told(error)));
  }, [path]);
  const changes = may("operator") || may("customer");
  const ticket = () =>
    act.run(async () => {
      save(`longhaul-${order}.probe.json`, await call<unknown>("POST", `${path}/probe-tickets`, {}));
    });
  const hand = (file: File | undefined) =>
    act.run(async () => {
      if (file === undefined) return;
      setNetwork(await call<OrderNetwork>("POST", `${path}/probe-reports`, JSON.parse(await file.text())));
    });
  return (
    <section class="card" aria-label="Network">
      <header>
        <h2>The customer's network</h2>
        {changes && <button onClick={() => setAsked(true)}>Answer…</button>}
      </header>
      <Trouble text={trouble ?? act.trouble} />
      {network !== undefined && (
        <dl>
          {(Object.keys(QUESTIONS) as Question[]).map((question) => (
            <Line key={question} question={question} network={network} />
          ))}
        </dl>
      )}
      {changes && (
        <div class="actions">
          <button disabled={act.busy} onClick={() => void ticket()}>
            Ticket for longhaul-probe
          </button>
          <label class="button">
            Hand in a probe's report
            <input type="file" class="hidden" accept=".report,application/json" onChange={(e) => void hand(e.currentTarget.files?.[0])} />
          </label>
          {may("operator") && (
            <a class="button" href={`${path}/file`} download>
              Order for the factory
            </a>
          )}
        </div>
      )}
      {asked && network !== undefined && <Answer path={path} network={network} taken={setNetwork} close={() => setAsked(false)} />}
    </section>
  );
}

function Line({ question, network }: { question: Question; network: OrderNetwork }) {
  const counts = answer(question, network.answers);
  const said = network.said_by[question];
  const found = answer(question, network.found);
  return (
    <>
      <dt>{QUESTIONS[question]}</dt>
      <dd>
        {counts ?? <span class="quiet">not answered</span>}{" "}
        <small class="quiet">{said !== undefined ? `said by ${said.by}` : counts !== undefined ? "found by a probe" : ""}</small>
        {network.differs.includes(question) && (
          <>
            {" "}
            <Mark kind="degraded" text={`a probe found: ${found ?? "nothing"}`} />
          </>
        )}
      </dd>
    </>
  );
}

function Answer({ path, network, taken, close }: { path: string; network: OrderNetwork; taken: (network: OrderNetwork) => void; close: () => void }) {
  const { said } = network;
  const fixed = said.address?.kind === "static" ? said.address : undefined;
  const [how, setHow] = useState(said.address?.kind ?? "");
  const [address, setAddress] = useState(fixed === undefined ? "" : `${fixed.address}/${fixed.prefix_len}`);
  const [gateway, setGateway] = useState(fixed?.gateway ?? "");
  const [dns, setDns] = useState((fixed?.dns ?? []).join(", "));
  const [vlan, setVlan] = useState(said.vlan == null ? "" : String(said.vlan));
  const [proxy, setProxy] = useState(said.proxy ?? "");
  const [dot1x, setDot1x] = useState(said.dot1x == null ? "" : String(said.dot1x));
  const [egress, setEgress] = useState((said.egress ?? []).map((way) => `${way.host}:${way.port}`).join("\n"));
  const words = (text: string) => text.split(/[\s,]+/).filter((word) => word !== "");
  const send = async () => {
    const [own = "", prefix = ""] = address.trim().split("/");
    const ways = words(egress).map((way) => ({ host: way.slice(0, way.lastIndexOf(":")), port: Number(way.slice(way.lastIndexOf(":") + 1)) }));
    const answers: NetworkAnswers = {
      ...(how === "dhcp" && { address: { kind: "dhcp" } }),
      ...(how === "static" && {
        address: { kind: "static", address: own, prefix_len: Number(prefix), dns: words(dns), ...(gateway.trim() !== "" && { gateway: gateway.trim() }) },
      }),
      ...(vlan !== "" && { vlan: Number(vlan) }),
      ...(proxy !== "" && { proxy }),
      ...(dot1x !== "" && { dot1x: dot1x === "true" }),
      ...(ways.length > 0 && { egress: ways }),
    };
    taken(await call<OrderNetwork>("PUT", `${path}/network`, answers));
  };
  return (
    <Ask title="The customer's network" verb="Save" send={send} close={close}>
      <Field label="Address">
        <select value={how} onChange={(e) => setHow(e.currentTarget.value)}>
          <option value="">Not known</option>
          <option value="dhcp">The network gives it one (DHCP)</option>
          <option value="static">A fixed one</option>
        </select>
      </Field>
      {how === "static" && (
        <>
          <Field label="Fixed address" hint="Such as 192.0.2.7/24">
            <input required value={address} onInput={(e) => setAddress(e.currentTarget.value)} />
          </Field>
          <Field label="Gateway">
            <input value={gateway} onInput={(e) => setGateway(e.currentTarget.value)} />
          </Field>
          <Field label="DNS servers" hint="With commas between">
            <input value={dns} onInput={(e) => setDns(e.currentTarget.value)} />
          </Field>
        </>
      )}
      <Field label="VLAN" hint="1 to 4094, 0 for none; empty if not known">
        <input type="number" min={0} max={4094} value={vlan} onInput={(e) => setVlan(e.currentTarget.value)} />
      </Field>
      <Field label="Proxy" hint="Such as http://proxy.example:3128; a log-in is set on the box">
        <input value={proxy} onInput={(e) => setProxy(e.currentTarget.value)} />
      </Field>
      <Field label="802.1X">
        <select value={dot1x} onChange={(e) => setDot1x(e.currentTarget.value)}>
          <option value="">Not known</option>
          <option value="true">Yes</option>
          <option value="false">No</option>
        </select>
      </Field>
      <Field label="Ways out" hint="host:port, one a line; * for any host">
        <textarea rows={3} value={egress} onInput={(e) => setEgress(e.currentTarget.value)} />
      </Field>
    </Ask>
  );
}

/** Has the browser save a document. */
function save(name: string, document_: unknown): void {
  const url = URL.createObjectURL(new Blob([JSON.stringify(document_, null, 2)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
