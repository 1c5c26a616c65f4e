import { bytes, count, objectUrl } from "./format";
import type { List } from "./hooks";
import { Age, Mark, Section, Trouble } from "./marks";
import { More } from "./table";
import type { BoxDetail, Transfer } from "./types";

/** The objects that a box takes or has taken to the cloud. */
export function Transfers({ list, uploads }: { list: List<Transfer>; uploads: BoxDetail["uploads"] }) {
  return (
    <Section title="Transfers">
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
