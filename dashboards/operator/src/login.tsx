import { useEffect, useRef, useState } from "preact/hooks";
import { call, get, me, Refused, told } from "./api";
import { Trouble } from "./marks";
import type { Me, Ways } from "./types";

/** Why the provider's word let nobody in, by the word that the cloud puts into the address. */
const REFUSALS: Record<string, string> = {
  stray: "That log-in was not begun here, or took too long. Please try again.",
  denied: "The log-in was not completed.",
  unknown: "You are known there, but none of your groups may do anything here. Ask an administrator.",
  name: "Your name belongs to another account here. Ask an administrator.",
  busy: "Too many attempts. Please wait five minutes.",
  provider: "The log-in service could not be asked, or its answer was wrong. Try again, or use your password.",
};

function refusal(): string | undefined {
  const why = new URLSearchParams(location.search).get("log-in");
  return why === null ? undefined : (REFUSALS[why] ?? REFUSALS.provider);
}

export function LogIn() {
  const [trouble, setTrouble] = useState<string | undefined>(refusal);
  const [busy, setBusy] = useState(false);
  const [ways, setWays] = useState<Ways>({});
  const first = useRef<HTMLInputElement>(null);
  useEffect(() => {
    first.current?.focus();
    // The address is about one attempt; a new page knows nothing of it.
    if (location.search !== "") history.replaceState(null, "", location.pathname + location.hash);
    get<Ways>("/v1/session/ways").then(setWays, () => setWays({}));
  }, []);

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
        {ways.provider && (
          <a class="button" href={ways.provider.url}>
            Log in with {ways.provider.name}
          </a>
        )}
      </form>
    </main>
  );
}
