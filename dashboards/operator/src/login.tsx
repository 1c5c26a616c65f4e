import { useEffect, useRef, useState } from "preact/hooks";
import { call, me, Refused, told } from "./api";
import { Trouble } from "./marks";
import type { Me } from "./types";

export function LogIn() {
  const [trouble, setTrouble] = useState<string>();
  const [busy, setBusy] = useState(false);
  const first = useRef<HTMLInputElement>(null);
  useEffect(() => first.current?.focus(), []);

  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setTrouble(undefined);
    try {
      me.value = await call<Me>("POST", "/v1/session", {
        name: String(form.get("name")),
        password: String(form.get("password")),
      });
    } catch (error) {
      setTrouble(error instanceof Refused && error.status === 401 ? "Wrong name or password." : told(error));
    } finally {
      setBusy(false);
    }
  };

  return (
    <main class="login">
      <form class="card" onSubmit={submit}>
        <img src="/icon.svg" alt="" width="40" height="40" />
        <h1>Longhaul</h1>
        <p class="quiet">The operators' dashboard</p>
        <label for="name">Name</label>
        <input ref={first} id="name" name="name" autocomplete="username" autocapitalize="none" required />
        <label for="password">Password</label>
        <input id="password" name="password" type="password" autocomplete="current-password" required />
        <Trouble text={trouble} />
        <button class="primary" disabled={busy}>
          {busy ? "Logging in…" : "Log in"}
        </button>
      </form>
    </main>
  );
}
