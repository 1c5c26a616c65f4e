import { useState } from "preact/hooks";
import { call, may, now } from "./api";
import { Ask, Confirm, Field } from "./dialog";
import { type List, useList } from "./hooks";
import { Age, Mark, Until } from "./marks";
import { boxLink, orderLink } from "./route";
import { type Column, ListTable } from "./table";
import type { BoxLine, Order, Ticket } from "./types";

const DAY_SECS = 86_400;

function standing(ticket: Ticket): string {
  if (ticket.revoked != null) return "revoked";
  return ticket.expires <= now.value ? "expired" : "valid";
}

/** Tickets, with what can be done with each. `without` leaves a column away that says the same in every row. */
export function Tickets({ list, without }: { list: List<Ticket>; without?: "Box" | "Order" }) {
  const [doomed, setDoomed] = useState<Ticket>();
  const columns: Column<Ticket>[] = [
    { head: "Ticket", cell: (ticket) => <><span class="id">{ticket.id}</span><small>made <Age at={ticket.created} /> by {ticket.created_by}</small></> },
    { head: "Box", cell: (ticket) => <a href={boxLink(ticket.box_id)}>{ticket.box_id}</a> },
    { head: "Order", cell: (ticket) => (ticket.order == null ? "–" : <a href={orderLink(ticket.order)}>{ticket.order}</a>) },
    { head: "Bucket", cell: (ticket) => ticket.bucket },
    { head: "Standing", cell: (ticket) => <><Mark kind={standing(ticket)} /> {ticket.revoked == null ? <Until at={ticket.expires} /> : <Age at={ticket.revoked} />}</> },
    {
      head: "Actions",
      hidden: true,
      cell: (ticket) =>
        may("operator") &&
        standing(ticket) === "valid" && (
          <span class="actions">
            <a class="button" href={`/v1/tickets/${encodeURIComponent(ticket.id)}/download`} download aria-label={`Download ${ticket.id}`}>
              Download
            </a>
            <button onClick={() => setDoomed(ticket)} aria-label={`Revoke ${ticket.id}`}>
              Revoke
            </button>
          </span>
        ),
    },
  ];
  return (
    <>
      <ListTable
        list={list}
        label="Tickets"
        name={(ticket) => ticket.id}
        look={(ticket) => (standing(ticket) === "valid" ? "" : "dim")}
        columns={columns.filter((column) => column.head !== without)}
        empty={
          <>
            <h2>No tickets yet</h2>
            <p>A ticket is the file with which a customer writes to one box, for one bucket, for a time.</p>
          </>
        }
      />
      {doomed !== undefined && (
        <Confirm
          title="Revoke this ticket?"
          verb="Revoke"
          send={() => call("DELETE", `/v1/tickets/${encodeURIComponent(doomed.id)}`).then(list.read)}
          close={() => setDoomed(undefined)}
        >
          <p>
            {doomed.id} for {doomed.bucket}. The customer can send nothing more with it; what the box has taken is still delivered. This
            cannot be undone.
          </p>
        </Confirm>
      )}
    </>
  );
}

/** Makes a ticket; what is known already is not asked for. */
export function AddTicket({ box, order, made, close }: { box?: string; order?: Order; made: () => Promise<void>; close: () => void }) {
  const boxes = useList<BoxLine>("/v1/boxes", {}, 1000);
  const orders = useList<Order>("/v1/orders", {}, 1000);
  const [boxId, setBoxId] = useState(box ?? "");
  const [orderId, setOrderId] = useState(order?.id ?? "");
  const [bucket, setBucket] = useState(order?.bucket ?? "");
  const [days, setDays] = useState(7);
  const choose = (id: string) => {
    setOrderId(id);
    const chosen = orders.items?.find((one) => one.id === id);
    if (chosen !== undefined) setBucket(chosen.bucket);
  };
  const send = async () => {
    const ticket = { bucket, expires_in_secs: days * DAY_SECS, ...(orderId !== "" && { order: orderId }) };
    await call("POST", `/v1/boxes/${encodeURIComponent(boxId)}/tickets`, ticket);
    await made();
  };
  return (
    <Ask title="Make a ticket" verb="Make" send={send} close={close}>
      {box === undefined && (
        <Field label="Box">
          <input required list="ticket-boxes" value={boxId} autocomplete="off" onInput={(e) => setBoxId(e.currentTarget.value.trim())} />
        </Field>
      )}
      <datalist id="ticket-boxes">
        {boxes.items?.map((one) => (
          <option key={one.id} value={one.id}>
            {[one.label, one.site].filter((part) => part !== "").join(", ")}
          </option>
        ))}
      </datalist>
      {order === undefined && (
        <Field label="Order">
          <select value={orderId} onChange={(event) => choose(event.currentTarget.value)}>
            <option value="">none</option>
            {orders.items?.map((one) => (
              <option key={one.id} value={one.id}>
                {one.customer === "" ? one.id : `${one.id}, ${one.customer}`}
              </option>
            ))}
          </select>
        </Field>
      )}
      <Field label="Bucket" hint="3 to 63 lower-case letters, digits, - and .">
        <input required value={bucket} autocomplete="off" autocapitalize="none" onInput={(e) => setBucket(e.currentTarget.value)} />
      </Field>
      <Field label="Valid for, in days">
        <input type="number" required min={1} max={366} value={days} onInput={(e) => setDays(e.currentTarget.valueAsNumber)} />
      </Field>
    </Ask>
  );
}
