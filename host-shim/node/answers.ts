/**
 * Requests that change something are done once. The relay marks each and sends it again to the next daemon when this one
 * goes without an answer: what was answered is answered the same, what was only begun is taken up again.
 */
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import { RpcError, type Status } from '#protocol/ttrpc/status'
import type { PodRecord } from './pod-record.ts'

export const REQUEST_MARK = 'caisson-request'

export class Answers {
  readonly #record: PodRecord
  readonly #save: () => void
  readonly #toStatus: (error: unknown) => Status

  constructor(record: PodRecord, save: () => void, toStatus: (error: unknown) => Status) {
    this.#record = record
    this.#save = save
    this.#toStatus = toStatus
  }

  /** @param work told whether an earlier daemon may have done part of it */
  async once<Schema extends DescMessage>(
    mark: string | undefined,
    schema: Schema,
    work: (again: boolean) => Promise<MessageInitShape<Schema>>,
  ): Promise<MessageShape<Schema>> {
    if (mark === undefined) return create(schema, await work(false))
    const { answers, begun } = this.#record
    const known = answers.find((answer) => answer.mark === mark)
    if (known?.error !== undefined) throw new RpcError('ERR_RPC_STATUS', known.error)
    if (known !== undefined) return fromBinary(schema, Buffer.from(known.response ?? '', 'base64'))
    const again = begun.includes(mark)
    if (!again) {
      begun.push(mark)
      this.#save()
    }
    try {
      const response = create(schema, await work(again))
      answers.push({ mark, response: Buffer.from(toBinary(schema, response)).toString('base64') })
      return response
    } catch (error) {
      const { code, message } = this.#toStatus(error)
      answers.push({ mark, error: { code, message } })
      throw error
    } finally {
      begun.splice(begun.indexOf(mark), 1)
      this.#save()
    }
  }
}
