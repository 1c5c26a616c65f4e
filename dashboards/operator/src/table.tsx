import type { ComponentChildren } from "preact";
import type { List } from "./hooks";
import { Trouble } from "./marks";

export interface Column<T> {
  head: string;
  cell: (row: T) => ComponentChildren;
  /** What only screen readers need to be told. */
  hidden?: boolean;
  /** Figures stand to the right. */
  figure?: boolean;
}

/** A table; on a phone, a list of cards. The first column names the row. */
export function Table<T>({ label, columns, rows, name, look }: {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  name: (row: T) => string;
  look?: (row: T) => string;
}) {
  return (
    <div class="card scroll" tabIndex={0} role="region" aria-label={label}>
      {/* The roles are said because a table that is laid out as cards loses its own. */}
      <table role="table">
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <th key={column.head} scope="col" role="columnheader" class={column.figure === true ? "figure" : ""}>
                {column.hidden === true ? <span class="hidden">{column.head}</span> : column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row) => (
            <tr key={name(row)} role="row" class={look?.(row) ?? ""}>
              {columns.map((column, i) =>
                i === 0 ? (
                  <th key={column.head} scope="row" role="rowheader">
                    {column.cell(row)}
                  </th>
                ) : (
                  <td key={column.head} role="cell" class={column.figure === true ? "figure" : column.hidden === true ? "doing" : ""} data-head={column.hidden === true ? "" : column.head}>
                    {column.cell(row)}
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A list as a table: what is being read, what failed, what is empty, and the way to more. */
export function ListTable<T>({ list, empty, ...table }: {
  list: List<T>;
  empty: ComponentChildren;
  label: string;
  columns: readonly Column<T>[];
  name: (row: T) => string;
  look?: (row: T) => string;
}) {
  return (
    <>
      <Trouble text={list.trouble} />
      {list.items === undefined && list.trouble === undefined && <p class="quiet">Reading…</p>}
      {list.items?.length === 0 && <div class="empty card">{empty}</div>}
      {list.items !== undefined && list.items.length > 0 && <Table {...table} rows={list.items} />}
      <More list={list} />
    </>
  );
}

export function More<T>({ list }: { list: List<T> }) {
  if (list.more === undefined) return null;
  return (
    <p>
      <button onClick={() => void list.more?.()}>Show more</button>
    </p>
  );
}
