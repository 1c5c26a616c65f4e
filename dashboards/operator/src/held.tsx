import { Age, Section } from "./marks";
import type { Quarantine } from "./types";

/** Why a box is held back, and what is different about its machine. */
export function Held({ quarantine }: { quarantine: Quarantine }) {
  const { since, held_by, reason, differs, accepted } = quarantine;
  return (
    <Section title="Held back" aside={<Age at={since} />}>
      <p>
        {reason} <span class="quiet">({held_by})</span>
      </p>
      {differs.length > 0 && (
        <table>
          <thead>
            <tr>
              <th>PCR</th>
              <th>Measures</th>
              <th>Found</th>
              <th>Expected</th>
            </tr>
          </thead>
          <tbody>
            {differs.map((differs) => (
              <tr key={differs.pcr}>
                <td>{differs.pcr}</td>
                <td>{differs.measures}</td>
                <td>
                  <code title={differs.found}>{differs.found.slice(0, 16)}…</code>
                </td>
                <td>
                  <code title={differs.expected}>{differs.expected.slice(0, 16)}…</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {accepted != null && (
        <p>
          It has since proved a state that is accepted: <Age at={accepted} />.
        </p>
      )}
    </Section>
  );
}
