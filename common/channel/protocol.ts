/**
 * The guest channel: how the host collector learns of the rows that the agent in a VM has stored.
 *
 *   guest agent                                          host collector
 *   (listens, or holds the port)                         (dials)
 *        | invite {agent instance} ------------------------>|   on opening a raw pipe, and when a frame of an
 *        |                                                  |   unknown session arrives
 *        |<------------ hello {versions, host instance}     |   repeated until the welcome comes; a new session
 *        | welcome {version, boot id, generations, heads} ->|
 *        |<--------------------- register {tables, notify}  |   at each hello
 *        |<-------------------------------- clock-request   |   t1; again every few seconds
 *        | clock-response ---------------------------------->|   t1, t2, t3; the host notes t4
 *        |<------------------ fetch {cursor, rows, bytes}   |   one at a time for each area
 *        | rows {rows, lost, through, hasMore} ------------->|   until hasMore is false
 *        |                                                  |
 *        | published {area, tables, through} --------------->|   a COMMIT published rows; at most one until the
 *        |<------------------------------- fetch, rows ...  |   next fetch, so a slow host costs no memory
 *        |<------------------- acknowledge {area, cursor}   |   durable at the host: the guest may prune
 *        | watermark {time, where each area must stand} ---->|   nothing older than `time` will come
 *        | clock-step {before, after, boot id} ------------->|   the guest's wall clock was set
 *        | ping <------------------------------------> ping |   by a side that has sent nothing for a while
 *
 * A **session** is one hello's worth: a random number that the host draws, in every frame. Frames of another
 * session are what a dead predecessor left in a raw pipe, and are ignored (by the guest: answered by an invite).
 * Everything is idempotent: fetches state their cursor, acknowledgements and registrations their whole meaning.
 * So a session that is cut at any byte is resumed by a new hello, and only the cursor matters.
 *
 * Lost ranges travel in `rows`, in their place among the row ids, and stay there until the cursor has passed them:
 * they are repeated, ordered and acknowledged exactly like rows.
 *
 * **Compatibility:** a program speaks {@link protocolVersion} and the one before it. The hello states the range,
 * the welcome the highest version that both know; without one the guest answers `error version-unsupported` and
 * closes. Within a version a message may gain optional fields and kinds may be added: unknown fields and kinds
 * are ignored. Anything else is a new version. The frame layout and `hello` never change.
 * `test/golden/channel/` has the bytes of every message of every version spoken.
 */
export const protocolVersion = 1;

/** The oldest version still spoken: the previous one, once there is one. */
export const protocolVersionOldest = 1;

/** No frame's payload is larger, in either direction; what announces more is garbage. */
export const payloadBytesMax = 16 * 1_048_576;

/** Table patterns in one registration, and the length of each; more is a malformed message. */
export const registrationsMax = 1_024;
export const patternCharsMax = 1_024;

/** What one fetch may ask for; a guest takes the smaller of this and the request. */
export const fetchRowsMax = 4_096;
export const fetchBytesMax = 1_048_576;

/** Times by which both sides live. */
export interface ChannelTimings {
  /** A side that has sent nothing for this long sends a ping. */
  readonly keepAliveIntervalMs: number;
  /** A peer from which no whole frame came for this long is gone, and the connection is closed. */
  readonly silenceMaxMs: number;
}

/** Half-open connections are noticed within 5 s; two lost pings are forgiven. */
export const channelTimings: ChannelTimings = { keepAliveIntervalMs: 1_500, silenceMaxMs: 5_000 };
