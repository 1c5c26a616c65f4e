import { call, may } from "./api";
import { bytes, count, objectUrl } from "./format";
import { type List, useAct } from "./hooks";
import { Age, Mark, Section, Trouble } from "./marks";
import { More } from "./table";
import type { BoxDetail, Transfer } from "./types";

/** How long a box has to begin to try again. */
const RETRY_IN_SECS = 3600;

/** The objects that a box takes or has taken to the cloud. */
export function Transfers({ list, detail }: { list: List<Transfer>; detail: BoxDetail }) {
  const { box, uploads } = detail;
  const act = useAct();
  const failed = uploads.find((of) => of.state === "failed")?.count ?? 0;
  const again = () => call("POST", `/v1/boxes/${encodeURIComponent(box.id)}/commands`, { kind: "retry", expires_in_secs: RETRY_IN_SECS });
  return (
    <Section title="Transfers">
      {failed > 0 && may("operator") && box.state === "active" && (
        <p class="actions">
          <button disabled={act.busy} onClick={() => void act.run(again)}>
            Try {failed === 1 ? "the one that failed" : `the ${failed} that failed`} again
          </button>
        </p>
      )}
      <Trouble text={act.trouble} />
      {uploads.length > 0 && (
        <p class="tally">
          {uploads.map((of) => (
            <Mark key={of.state} kind={of.state} text={`${count(of.count, "object")} ${of.state}, ${bytes(of.bytes)}`} />
          ))}
        </p>
      )}
      <Trouble text={list.trouble} />
      {list.items?.length === 0 && <p class="quiet">Nothing has been sent to the cloud yet.</p>}
      <ul class="list">
        {list.items?.map((t) => (
          <li key={t.id} class="line">
            <Mark kind={t.state} />
            <span class="what">
              {t.state === "verified" ? (
                <a href={objectUrl(t.bucket, t.key)} download>
                  {t.key}
                </a>
              ) : (
                t.key
              )}{" "}
              <span class="quiet">
                {bytes(t.bytes)} to {t.bucket}
              </span>
              {t.reason != null && <p>{t.reason}</p>}
            </span>
            <Age at={t.updated} />
          </li>
        ))}
      </ul>
      <More list={list} />
    </Section>
  );
}
