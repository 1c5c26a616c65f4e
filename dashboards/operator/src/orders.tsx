import { useEffect, useState } from "preact/hooks";
import { call, get, may, told } from "./api";
import { DestinationCard } from "./destination";
import { Ask, Field } from "./dialog";
import { useList, useLive, useSoon } from "./hooks";
import { Age, Trouble } from "./marks";
import { NetworkCard } from "./network";
import { dataLink, orderLink } from "./route";
import { ListTable } from "./table";
import { AddTicket, Tickets } from "./tickets";
import type { Order, Ticket } from "./types";

const ROWS = 50;

/** Orders, and every ticket. */
export function Orders() {
  const orders = useList<Order>("/v1/orders", {}, ROWS);
  const tickets = useTickets();
  const [asked, setAsked] = useState<"order" | "ticket">();
  const close = () => setAsked(undefined);
  return (
    <main>
      <div class="title">
        <h1>Orders</h1>
        {may("operator") && (
          <button class="primary aside" onClick={() => setAsked("order")}>
            Add an order
          </button>
        )}
      </div>
      <ListTable
        list={orders}
        label="Orders"
        name={(order) => order.id}
        empty={
          <>
            <h2>No orders yet</h2>
            <p>An order says for which customer boxes travel, and into which bucket their data goes.</p>
          </>
        }
        columns={[
          { head: "Order", cell: (order) => <a href={orderLink(order.id)}>{order.id}</a> },
          { head: "Customer", cell: (order) => (order.customer === "" ? "–" : order.customer) },
          { head: "Bucket", cell: (order) => <a href={dataLink(order.bucket, "")}>{order.bucket}</a> },
          { head: "Note", cell: (order) => <span class="clip">{order.note === "" ? "–" : order.note}</span> },
          { head: "Added", cell: (order) => <><Age at={order.created} /> by {order.created_by}</> },
        ]}
      />
      <div class="title">
        <h1>Tickets</h1>
        {may("operator") && (
          <button class="primary aside" onClick={() => setAsked("ticket")}>
            Make a ticket
          </button>
        )}
      </div>
      <Tickets list={tickets} />
      {asked === "order" && <AddOrder close={close} />}
      {asked === "ticket" && <AddTicket made={tickets.read} close={close} />}
    </main>
  );
}

/** Tickets of all boxes, or of one order, kept up to date. */
function useTickets(order?: string) {
  const tickets = useList<Ticket>("/v1/tickets", { order }, ROWS);
  const soon = useSoon(() => void tickets.read(), 300);
  useLive(
    undefined,
    (event) => {
      if (event.event === "tickets") soon();
    },
    soon,
  );
  return tickets;
}

function AddOrder({ close }: { close: () => void }) {
  const [id, setId] = useState("");
  const [customer, setCustomer] = useState("");
  const [bucket, setBucket] = useState("");
  const [note, setNote] = useState("");
  const send = async () => {
    const made = await call<Order>("POST", "/v1/orders", { customer, bucket, note, ...(id !== "" && { id }) });
    location.hash = orderLink(made.id);
  };
  return (
    <Ask title="Add an order" verb="Add" send={send} close={close}>
      <Field label="Order" hint="1 to 64 letters, digits, - and _; made up if you leave it empty">
        <input value={id} maxLength={64} autocomplete="off" onInput={(e) => setId(e.currentTarget.value)} />
      </Field>
      <Field label="Customer">
        <input required maxLength={200} value={customer} onInput={(e) => setCustomer(e.currentTarget.value)} />
      </Field>
      <Field label="Bucket" hint="3 to 63 lower-case letters, digits, - and .">
        <input required value={bucket} autocomplete="off" autocapitalize="none" onInput={(e) => setBucket(e.currentTarget.value)} />
      </Field>
      <Field label="Note">
        <textarea rows={3} maxLength={2000} value={note} onInput={(e) => setNote(e.currentTarget.value)} />
      </Field>
    </Ask>
  );
}

/** One order with its tickets. */
export function OrderPage({ id }: { id: string }) {
  const [order, setOrder] = useState<Order>();
  const [trouble, setTrouble] = useState<string>();
  const [adding, setAdding] = useState(false);
  const tickets = useTickets(id);
  useEffect(() => {
    get<Order>(`/v1/orders/${encodeURIComponent(id)}`).then(setOrder, (error: unknown) => setTrouble(told(error)));
  }, []);
  return (
    <main>
      <div class="title">
        <h1>{id}</h1>
        <span class="quiet">order</span>
      </div>
      <Trouble text={trouble} />
      {order !== undefined && (
        <>
          <section class="card" aria-label="Order">
            <dl>
              <dt>Customer</dt>
              <dd>{order.customer}</dd>
              <dt>Bucket</dt>
              <dd>
                <a href={dataLink(order.bucket, "")}>{order.bucket}</a>
              </dd>
              <dt>Note</dt>
              <dd class="text">{order.note === "" ? "–" : order.note}</dd>
              <dt>Added</dt>
              <dd>
                <Age at={order.created} /> by {order.created_by}
              </dd>
            </dl>
          </section>
          <NetworkCard order={order.id} />
          <DestinationCard bucket={order.bucket} />
          <div class="title">
            <h2>Tickets</h2>
            {may("operator") && (
              <button class="primary aside" onClick={() => setAdding(true)}>
                Make a ticket
              </button>
            )}
          </div>
          <Tickets list={tickets} without="Order" />
          {adding && <AddTicket order={order} made={tickets.read} close={() => setAdding(false)} />}
        </>
      )}
    </main>
  );
}
