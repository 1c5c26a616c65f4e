import { brief } from "./format";
import { useList } from "./hooks";
import { Age } from "./marks";
import { boxLink } from "./route";
import { ListTable } from "./table";
import type { AuditItem } from "./types";

const BOX = /^[0-9A-HJKMNP-TV-Z]{12}$/;

export function Audit() {
  const list = useList<AuditItem>("/v1/audit", {}, 50);
  return (
    <main>
      <div class="title">
        <h1>Audit</h1>
        <span class="quiet">who did what to what, newest first</span>
        <button class="aside" onClick={() => void list.read()}>
          Read anew
        </button>
      </div>
      <ListTable
        list={list}
        label="Audit"
        name={(item) => String(item.number)}
        empty={<h2>Nothing has been done yet</h2>}
        columns={[
          { head: "No.", cell: (item) => item.number },
          { head: "When", cell: (item) => <Age at={item.at} /> },
          { head: "Who", cell: (item) => item.actor },
          { head: "Did", cell: (item) => <code>{item.action}</code> },
          { head: "To", cell: (item) => (BOX.test(item.subject) ? <a href={boxLink(item.subject)}>{item.subject}</a> : <span class="id">{item.subject}</span>) },
          { head: "How", cell: (item) => <span class="id">{brief(item.detail)}</span> },
          { head: "Hash", cell: (item) => <code title={item.hash}>{item.hash.slice(0, 12)}…</code> },
        ]}
      />
    </main>
  );
}
