/**
 * Entries of the log and configurations as bytes: inside messages (`Entry` and `Configuration` of
 * proto/peer.proto, through `frame.ts`) and in rows of the log (`disk.ts`).
 *
 * @module
 */

import type { Configuration, Entry, Index, Place, Term } from "./message.ts";
import { DkvError, unreachable } from "./errors.ts";
import {
  Fields,
  newWriter,
  putBytes,
  putInteger,
  putNested,
  putText,
  putTexts,
  type Writer,
} from "./fields.ts";

/** The first byte of a row's payload. Part of the format on disk: never renumbered. */
const PAYLOAD_TYPE = { empty: 0, batch: 1, configuration: 2 } as const;

/** Writes the fields of a `Configuration`. */
export function putConfiguration(
  writer: Writer,
  configuration: Configuration,
): void {
  putTexts(writer, 1, configuration.voters);
  putTexts(writer, 2, configuration.votersOutgoing);
  putTexts(writer, 3, configuration.learners);
  putTexts(writer, 4, configuration.learnersNext);
  putTexts(writer, 5, configuration.learnersHeld ?? []);
  putPlaces(writer, 6, configuration.places ?? []);
}

/** Writes places, each a `Place`. */
export function putPlaces(
  writer: Writer,
  field: number,
  places: readonly Place[],
): void {
  for (const { member, address, invitedAs = "" } of places) {
    putNested(writer, field, () => {
      putText(writer, 1, member);
      putText(writer, 2, address);
      putText(writer, 3, invitedAs);
    });
  }
}

/** Reads a `Place`. */
export function readPlace(fields: Fields): Place {
  let member = "";
  let address = "";
  let invitedAs = "";
  while (fields.next()) {
    if (fields.number === 1) member = fields.text();
    else if (fields.number === 2) address = fields.text();
    else if (fields.number === 3) invitedAs = fields.text();
    else fields.skip();
  }
  return { member, address, ...(invitedAs === "" ? {} : { invitedAs }) };
}

/** Reads a `Configuration`; one without voters is malformed. */
export function readConfiguration(fields: Fields): Configuration {
  const voters: string[] = [];
  const votersOutgoing: string[] = [];
  const learners: string[] = [];
  const learnersNext: string[] = [];
  const held: string[] = [];
  const places: Place[] = [];
  while (fields.next()) {
    if (fields.number === 1) voters.push(fields.text());
    else if (fields.number === 2) votersOutgoing.push(fields.text());
    else if (fields.number === 3) learners.push(fields.text());
    else if (fields.number === 4) learnersNext.push(fields.text());
    else if (fields.number === 5) held.push(fields.text());
    else if (fields.number === 6) {
      places.push(readPlace(fields.nested("Place")));
    } else fields.skip();
  }
  if (voters.length === 0) {
    throw new DkvError("MALFORMED", "Configuration has no voters");
  }
  return {
    voters,
    votersOutgoing,
    learners,
    learnersNext,
    ...(held.length === 0 ? {} : { learnersHeld: held }),
    ...(places.length === 0 ? {} : { places }),
  };
}

/** A `Configuration` alone. */
export function encodeConfiguration(configuration: Configuration): Uint8Array {
  const writer = newWriter();
  putConfiguration(writer, configuration);
  return writer.finish();
}

/** Reverses {@linkcode encodeConfiguration}. Throws `MALFORMED`. */
export function decodeConfiguration(bytes: Uint8Array): Configuration {
  return readConfiguration(new Fields("Configuration", bytes));
}

/** Writes the fields of an `Entry`. */
export function putEntry(writer: Writer, entry: Entry): void {
  putInteger(writer, 1, entry.index);
  putInteger(writer, 2, entry.term);
  switch (entry.type) {
    case "empty":
      return putNested(writer, 3, () => {});
    case "batch":
      return putBytes(writer, 4, entry.data);
    case "configuration":
      return putNested(
        writer,
        5,
        () => putConfiguration(writer, entry.configuration),
      );
    default:
      unreachable(entry);
  }
}

/** Reads an `Entry`. The data of a batch is a view into the message. */
export function readEntry(fields: Fields): Entry {
  let index = 0;
  let term = 0;
  let data: Uint8Array | null = null;
  let configuration: Configuration | null = null;
  let empty = false;
  while (fields.next()) {
    if (fields.number === 1) index = fields.integer();
    else if (fields.number === 2) term = fields.integer();
    else if (fields.number === 3) {
      fields.skip();
      empty = true;
    } else if (fields.number === 4) data = fields.bytes();
    else if (fields.number === 5) {
      configuration = readConfiguration(fields.nested("Configuration"));
    } else fields.skip();
  }
  if (data !== null) return { index, term, type: "batch", data };
  if (configuration !== null) {
    return { index, term, type: "configuration", configuration };
  }
  if (empty) return { index, term, type: "empty" };
  throw new DkvError("MALFORMED", `Entry ${index} has no known payload`);
}

/**
 * What a row of the log holds beside index and term:
 *
 * ```text
 * 0                      empty
 * 1 data…                batch
 * 2 Configuration…       configuration
 * ```
 */
export function encodeEntryPayload(entry: Entry): Uint8Array {
  switch (entry.type) {
    case "empty":
      return Uint8Array.of(PAYLOAD_TYPE.empty);
    case "batch":
      return tagged(PAYLOAD_TYPE.batch, entry.data);
    case "configuration":
      return tagged(
        PAYLOAD_TYPE.configuration,
        encodeConfiguration(entry.configuration),
      );
    default:
      unreachable(entry);
  }
}

/** Reverses {@linkcode encodeEntryPayload}. The data of a batch is a view of `payload`. Throws `MALFORMED`. */
export function decodeEntryPayload(
  position: { readonly index: Index; readonly term: Term },
  payload: Uint8Array,
): Entry {
  const { index, term } = position;
  const data = payload.subarray(1);
  switch (payload[0]) {
    case PAYLOAD_TYPE.empty:
      return { index, term, type: "empty" };
    case PAYLOAD_TYPE.batch:
      return { index, term, type: "batch", data };
    case PAYLOAD_TYPE.configuration:
      return {
        index,
        term,
        type: "configuration",
        configuration: decodeConfiguration(data),
      };
    default:
      throw new DkvError(
        "MALFORMED",
        `Entry ${index} has an unknown payload of type ${payload[0]}`,
      );
  }
}

function tagged(type: number, bytes: Uint8Array): Uint8Array {
  const payload = new Uint8Array(1 + bytes.length);
  payload[0] = type;
  payload.set(bytes, 1);
  return payload;
}
