/**
 * A byte stream in both directions, free of any JavaScript engine's own stream classes: ttrpc and the agent are
 * written against it, and `protocol/node/duplex-stream.ts` makes one from a Node socket.
 *
 * Reading is pull-based, so an unread stream pushes back on its peer.
 */
export interface ByteStream {
  /** The next bytes, never empty; null at the end of the stream. Rejects when the stream broke. One reader at a time. */
  read(): Promise<Uint8Array | null>
  /** Resolves when the bytes were taken by the system; rejects when the other side is gone. */
  write(bytes: Uint8Array): Promise<void>
  /** Half-close: no more writes. Resolves when everything before was taken by the system. */
  end(): Promise<void>
  /** Ends both directions at once; never throws. A pending `read` resolves with null. */
  destroy(): void
}
