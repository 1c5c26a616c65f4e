import { useState } from "preact/hooks";
import { call, me, now } from "./api";
import { Ask, Confirm, Dialog, Field } from "./dialog";
import { type List, useList } from "./hooks";
import { Age, Mark, Until } from "./marks";
import { ListTable } from "./table";
import type { Operator, Role, Token } from "./types";

/** What an administrator manages: who may log in, and what programs may do. */
export function Access() {
  return (
    <main>
      <Operators />
      <Tokens />
    </main>
  );
}

const operatorUrl = (name: string) => `/v1/operators/${encodeURIComponent(name)}`;

type Asked = { what: "add" } | { what: "change" | "remove"; operator: Operator };

function Operators() {
  const list = useList<Operator>("/v1/operators");
  const [asked, setAsked] = useState<Asked>();
  const close = () => setAsked(undefined);
  return (
    <>
      <div class="title">
        <h1>Operators</h1>
        <button class="primary aside" onClick={() => setAsked({ what: "add" })}>
          Add an operator
        </button>
      </div>
      <ListTable
        list={list}
        label="Operators"
        name={(operator) => operator.name}
        empty={<h2>No operators</h2>}
        columns={[
          { head: "Name", cell: (operator) => <>{operator.name}{operator.name === me.value?.name && <small>you</small>}</> },
          { head: "Role", cell: (operator) => <>{operator.role}{operator.tenant != null && <small>{operator.tenant}</small>}</> },
          { head: "Added", cell: (operator) => <Age at={operator.created} /> },
          {
            head: "Actions",
            hidden: true,
            cell: (operator) => (
              <span class="actions">
                <button onClick={() => setAsked({ what: "change", operator })} aria-label={`Change ${operator.name}`}>
                  Change
                </button>
                <button onClick={() => setAsked({ what: "remove", operator })} aria-label={`Remove ${operator.name}`}>
                  Remove
                </button>
              </span>
            ),
          },
        ]}
      />
      {asked?.what === "add" && <AddOperator list={list} close={close} />}
      {asked?.what === "change" && <ChangeOperator operator={asked.operator} list={list} close={close} />}
      {asked?.what === "remove" && (
        <Confirm
          title={`Remove ${asked.operator.name}?`}
          verb="Remove"
          type={asked.operator.name}
          send={() => call("DELETE", operatorUrl(asked.operator.name)).then(list.read)}
          close={close}
        >
          <p>Their sessions end at once. API tokens that they made stay valid.</p>
        </Confirm>
      )}
    </>
  );
}

/** A role, and for customers whose they are; without `setTenant`, customers are not to be made. */
function RoleField({ role, set, tenant, setTenant }: {
  role: Role;
  set: (role: Role) => void;
  tenant?: string;
  setTenant?: (tenant: string) => void;
}) {
  return (
    <>
      <RoleChoice role={role} set={set} customers={setTenant !== undefined} />
      {role === "customer" && setTenant !== undefined && (
        <Field label="Tenant" hint="Whose orders, boxes, tickets and objects they see">
          <input required value={tenant ?? ""} autocomplete="off" autocapitalize="none" onInput={(e) => setTenant(e.currentTarget.value)} />
        </Field>
      )}
    </>
  );
}

function RoleChoice({ role, set, customers }: { role: Role; set: (role: Role) => void; customers: boolean }) {
  return (
    <Field label="Role" hint="A viewer sees, an operator also acts on boxes, an admin also manages operators and tokens. A customer sees what is their tenant's.">
      <select value={role} onChange={(event) => set(event.currentTarget.value as Role)}>
        <option>viewer</option>
        <option>operator</option>
        <option>admin</option>
        {customers && <option>customer</option>}
      </select>
    </Field>
  );
}

function AddOperator({ list, close }: { list: List<Operator>; close: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const [tenant, setTenant] = useState("");
  const [password, setPassword] = useState("");
  const whose = role === "customer" ? { tenant } : {};
  return (
    <Ask title="Add an operator" verb="Add" send={() => call("POST", "/v1/operators", { name, role, password, ...whose }).then(list.read)} close={close}>
      <Field label="Name" hint="1 to 64 letters, digits, and . - _ @">
        <input required value={name} autocomplete="off" autocapitalize="none" onInput={(e) => setName(e.currentTarget.value)} />
      </Field>
      <RoleField role={role} set={setRole} tenant={tenant} setTenant={setTenant} />
      <Field label="First password" hint="At least 12 characters; they can change it after logging in.">
        <input type="password" autocomplete="new-password" required minLength={12} value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
      </Field>
    </Ask>
  );
}

function ChangeOperator({ operator, list, close }: { operator: Operator; list: List<Operator>; close: () => void }) {
  const [role, setRole] = useState(operator.role);
  const [password, setPassword] = useState("");
  const change = { ...(role !== operator.role && { role }), ...(password !== "" && { password }) };
  return (
    <Ask
      title={`Change ${operator.name}`}
      verb="Change"
      ready={Object.keys(change).length > 0}
      send={() => call("PATCH", operatorUrl(operator.name), change).then(list.read)}
      close={close}
    >
      {operator.role !== "customer" && <RoleField role={role} set={setRole} />}
      <Field label="New password" hint="Leave it empty to keep the one they have. A new one ends their sessions.">
        <input type="password" autocomplete="new-password" minLength={12} value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
      </Field>
    </Ask>
  );
}

function standing(token: Token): string {
  if (token.revoked != null) return "revoked";
  return token.expires != null && token.expires <= now.value ? "expired" : "valid";
}

function Tokens() {
  const list = useList<Token>("/v1/tokens");
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState<{ token: Token; secret: string }>();
  const [doomed, setDoomed] = useState<Token>();
  return (
    <>
      <div class="title">
        <h1>API tokens</h1>
        <button class="primary aside" onClick={() => setAdding(true)}>
          Make a token
        </button>
      </div>
      <ListTable
        list={list}
        label="API tokens"
        name={(token) => token.id}
        look={(token) => (standing(token) === "valid" ? "" : "dim")}
        empty={
          <>
            <h2>No tokens yet</h2>
            <p>A program sends a token as <code>Authorization: Bearer …</code> instead of logging in.</p>
          </>
        }
        columns={[
          { head: "Name", cell: (token) => <>{token.name}<small>{token.id}</small></> },
          { head: "Standing", cell: (token) => <><Mark kind={standing(token)} /> {token.revoked != null && <Age at={token.revoked} />}</> },
          { head: "Role", cell: (token) => <>{token.role}{token.tenant != null && <small>{token.tenant}</small>}</> },
          { head: "Made", cell: (token) => <><Age at={token.created} /> by {token.created_by}</> },
          { head: "Ends", cell: (token) => <Until at={token.expires} /> },
          {
            head: "Actions",
            hidden: true,
            cell: (token) =>
              standing(token) === "valid" && (
                <button onClick={() => setDoomed(token)} aria-label={`Revoke ${token.name}`}>
                  Revoke
                </button>
              ),
          },
        ]}
      />
      {adding && <AddToken list={list} made={setMade} close={() => setAdding(false)} />}
      {made !== undefined && <MadeToken name={made.token.name} secret={made.secret} close={() => setMade(undefined)} />}
      {doomed !== undefined && (
        <Confirm
          title={`Revoke ${doomed.name}?`}
          verb="Revoke"
          send={() => call("DELETE", `/v1/tokens/${encodeURIComponent(doomed.id)}`).then(list.read)}
          close={() => setDoomed(undefined)}
        >
          <p>Programs that use it are refused at once. This cannot be undone.</p>
        </Confirm>
      )}
    </>
  );
}

const DAY_SECS = 86_400;

function AddToken({ list, made, close }: { list: List<Token>; made: (token: { token: Token; secret: string }) => void; close: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const [tenant, setTenant] = useState("");
  const [days, setDays] = useState("90");
  const send = async () => {
    const expires = days === "" ? {} : { expires_in_secs: Number(days) * DAY_SECS };
    const answer = await call<{ token: Token; secret: string }>("POST", "/v1/tokens", { name, role, ...expires, ...(role === "customer" && { tenant }) });
    await list.read();
    made(answer);
  };
  return (
    <Ask title="Make an API token" verb="Make" send={send} close={close}>
      <Field label="Name" hint="What it is for, in your words">
        <input required maxLength={64} value={name} autocomplete="off" onInput={(e) => setName(e.currentTarget.value)} />
      </Field>
      <RoleField role={role} set={setRole} tenant={tenant} setTenant={setTenant} />
      <Field label="Valid for">
        <select value={days} onChange={(event) => setDays(event.currentTarget.value)}>
          <option value="1">a day</option>
          <option value="30">30 days</option>
          <option value="90">90 days</option>
          <option value="365">a year</option>
          <option value="">until it is revoked</option>
        </select>
      </Field>
    </Ask>
  );
}

function MadeToken({ name, secret, close }: { name: string; secret: string; close: () => void }) {
  const [copied, setCopied] = useState(false);
  return (
    <Dialog title={`The secret of ${name}`} close={close}>
      <p>It is shown now and never again.</p>
      <p>
        <code class="secret">{secret}</code>
      </p>
      <div class="actions">
        <button
          onClick={() =>
            void navigator.clipboard.writeText(secret).then(
              () => setCopied(true),
              () => setCopied(false),
            )
          }
        >
          {copied ? "Copied" : "Copy"}
        </button>
        <button class="primary" onClick={(event) => event.currentTarget.closest("dialog")?.close()}>
          I have kept it
        </button>
      </div>
    </Dialog>
  );
}
