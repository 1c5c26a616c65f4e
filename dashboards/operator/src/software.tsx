import { Age, Mark, Section, Until } from "./marks";
import { rolloutLink } from "./route";
import type { BoxDetail } from "./types";

/** What runs on a box: its release, its slots, and what became of its last update. */
export function Software({ detail }: { detail: BoxDetail }) {
  const { box, reported, update } = detail;
  const slots = reported?.slots;
  const slot = (name: "a" | "b") => (
    <>
      {slots?.[name] ?? "empty"} {slots?.active === name && <Mark kind="active" text="runs" />}
    </>
  );
  return (
    <Section title="Release" aside={<Age at={detail.reported_at} />}>
      <dl>
        <dt>Agent</dt>
        <dd>{box.agent_version ?? "unknown"}</dd>
        <dt>Operating system</dt>
        <dd>{box.os_version ?? "unknown"}</dd>
        {slots !== undefined && slots.active !== "" && (
          <>
            <dt>Slot a</dt>
            <dd>{slot("a")}</dd>
            <dt>Slot b</dt>
            <dd>{slot("b")}</dd>
          </>
        )}
        <dt>Last update</dt>
        <dd>
          {update == null ? (
            "none"
          ) : (
            <>
              <a href={rolloutLink(update.rollout)}>{update.version}</a> <Mark kind={update.state} /> <Age at={update.since} />
              {update.reason != null && <p class="reason">{update.reason}</p>}
            </>
          )}
        </dd>
        <dt>Settings</dt>
        <dd>
          <span title={`version ${box.applied_version} applied, ${box.desired_version} wanted`}>
            {box.desired_version === 0 ? "none yet" : box.applied_version === box.desired_version ? "applied" : "the newest are not applied yet"}
          </span>
          {reported?.problems?.map((problem) => (
            <p key={problem} class="reason">
              {problem}
            </p>
          ))}
        </dd>
        <dt>Telemetry</dt>
        <dd>{reported == null ? "unknown" : `every ${reported.telemetry_interval_secs} s`}</dd>
        <dt>Certificate</dt>
        <dd>{box.certificate_expires == null ? "none" : <>ends <Until at={box.certificate_expires} /></>}</dd>
        <dt>On the LAN</dt>
        <dd>{box.lan_urls.length === 0 ? "not said" : box.lan_urls.map((url) => <div key={url}>{url}</div>)}</dd>
      </dl>
    </Section>
  );
}
