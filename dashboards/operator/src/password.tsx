import { useState } from "preact/hooks";
import { call, me } from "./api";
import { Field } from "./dialog";
import { useAct } from "./hooks";
import { Section, Trouble } from "./marks";

/** One's own password. */
export function Password() {
  const act = useAct();
  const [old, setOld] = useState("");
  const [fresh, setFresh] = useState("");
  return (
    <main class="narrow">
      <div class="title">
        <h1>{me.value?.name}</h1>
        <span class="quiet">{me.value?.role}</span>
      </div>
      <Section title="Your password">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void act.run(async () => {
              await call("POST", "/v1/me/password", { old, new: fresh });
              // It has ended every session, this one too.
              me.value = null;
            });
          }}
        >
          <Field label="Password so far">
            <input type="password" autocomplete="current-password" required value={old} onInput={(e) => setOld(e.currentTarget.value)} />
          </Field>
          <Field label="New password" hint="At least 12 characters. You are logged out everywhere.">
            <input
              type="password"
              autocomplete="new-password"
              required
              minLength={12}
              value={fresh}
              onInput={(e) => setFresh(e.currentTarget.value)}
            />
          </Field>
          <Trouble text={act.trouble} />
          <div class="actions">
            <button class="primary" disabled={act.busy}>
              Change
            </button>
          </div>
        </form>
      </Section>
    </main>
  );
}
