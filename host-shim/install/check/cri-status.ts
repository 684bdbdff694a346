/** What the CRI plugin of a running containerd says of itself: whether it is ready, and with which runtimes. */
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import { errorText, MalformedError } from '#protocol/errors'
import { valueAt } from '../toml-edit.ts'

export interface CriStatus {
  /** By their names: RuntimeReady, NetworkReady. */
  readonly conditions: Readonly<Record<string, boolean>>
  /** Names of the runtimes that are in effect; a containerd that was not restarted has the old ones. */
  readonly runtimes: readonly string[]
}

const MAX_BYTES = 16 * 1024 * 1024
/** runtime.v1.StatusRequest{verbose: true} */
const VERBOSE = Buffer.from([0x08, 0x01])

/** @throws ServiceError of grpc-js, MalformedError ERR_CRI_STATUS */
export async function askCriStatus(socket: string, timeoutMs: number): Promise<CriStatus> {
  const client = new Client(`unix://${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
    'grpc.max_receive_message_length': MAX_BYTES,
  })
  try {
    const answer = await new Promise<Buffer>((resolve, reject) => {
      const same = (bytes: Buffer): Buffer => bytes
      const deadline = Date.now() + timeoutMs
      client.makeUnaryRequest(
        '/runtime.v1.RuntimeService/Status',
        same,
        same,
        VERBOSE,
        new Metadata(),
        { deadline },
        (error, bytes) => (bytes === undefined ? reject(error) : resolve(bytes)),
      )
    })
    return parseCriStatus(answer)
  } finally {
    client.close()
  }
}

/**
 * runtime.v1.StatusResponse: 1 status{1 conditions{1 type, 2 status}}, 2 info, a map of JSON texts for people, of which
 * containerd's entry "config" is its configuration. @throws MalformedError ERR_CRI_STATUS
 */
export function parseCriStatus(bytes: Uint8Array): CriStatus {
  try {
    const conditions: Record<string, boolean> = Object.create(null) as Record<string, boolean>
    let config = ''
    for (const { field, value } of fieldsOf(bytes)) {
      if (field === 1) Object.assign(conditions, conditionsOf(value))
      const [key, text] = field === 2 ? fieldsOf(value).map((part) => Buffer.from(part.value).toString()) : []
      if (key === 'config') config = text ?? ''
    }
    const runtimes: unknown = config === '' ? {} : valueAt(JSON.parse(config), ['containerd', 'runtimes'])
    return {
      conditions: { ...conditions },
      runtimes: typeof runtimes === 'object' && runtimes !== null ? Object.keys(runtimes) : [],
    }
  } catch (cause) {
    throw new MalformedError(
      'ERR_CRI_STATUS',
      `containerd's answer about its status is not understood: ${errorText(cause)}`,
      {
        hint: 'Look at its log, and at: crictl info',
        cause,
      },
    )
  }
}

function conditionsOf(status: Uint8Array): Record<string, boolean> {
  const conditions: Record<string, boolean> = {}
  for (const { field, value } of fieldsOf(status)) {
    if (field !== 1) continue
    let type = ''
    let holds = false
    const reader = new BinaryReader(value)
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag()
      if (number === 1 && wireType === WireType.LengthDelimited) type = reader.string()
      else if (number === 2 && wireType === WireType.Varint) holds = reader.bool()
      else reader.skip(wireType)
    }
    conditions[type] = holds
  }
  return conditions
}

/** Length-delimited fields, in their order; others are left out. */
function fieldsOf(bytes: Uint8Array): readonly { readonly field: number; readonly value: Uint8Array }[] {
  const reader = new BinaryReader(bytes)
  const fields: { field: number; value: Uint8Array }[] = []
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (wireType === WireType.LengthDelimited) fields.push({ field, value: reader.bytes() })
    else reader.skip(wireType)
  }
  return fields
}
