/** The content of a volume as the host sends it: bounded while it arrives, judged by name before any of it is kept. */
import type { ContentKind } from '#policies/volume-rule'
import { concatBytes } from '#protocol/encoding'
import { type SetVolumeRequest, VolumeKind } from '#protocol/gen/agent_pb'
import {
  checkVolumeFiles,
  MAX_VOLUME_BYTES,
  MAX_VOLUME_FILES,
  parseVolumeName,
  type VolumeFile,
} from '#protocol/volume-content'
import { limitExceeded, malformedRequest } from './agent-error.ts'

const KINDS: ReadonlyMap<VolumeKind, ContentKind> = new Map([
  [VolumeKind.CONFIG_MAP, 'config-map'],
  [VolumeKind.SECRET, 'secret'],
  [VolumeKind.PROJECTED, 'projected'],
  [VolumeKind.DOWNWARD_API, 'downward-api'],
])

export interface VolumeUpload<Rule> {
  readonly rule: Rule
  readonly files: readonly VolumeFile[]
}

/**
 * @param admit called with the first message's kind and name; what it throws ends the upload
 * @throws AgentError ERR_REQUEST_MALFORMED, ERR_LIMIT; MalformedError ERR_VOLUME_CONTENT
 */
export async function receiveVolume<Rule>(
  messages: AsyncIterable<SetVolumeRequest>,
  admit: (volume: { kind: ContentKind; name: string }) => Rule,
): Promise<VolumeUpload<Rule>> {
  let rule: { readonly value: Rule } | undefined
  const files: { path: string; parts: Uint8Array[] }[] = []
  let total = 0
  for await (const message of messages) {
    if (rule === undefined) rule = { value: admit(headerOf(message)) }
    else if (message.kind !== VolumeKind.UNSPECIFIED || message.name !== '') {
      throw malformedRequest('volume', 'is named twice')
    }
    for (const { path, content } of message.files) {
      total += content.byteLength
      if (total > MAX_VOLUME_BYTES) throw limitExceeded('bytes of a volume', MAX_VOLUME_BYTES)
      const last = files.at(-1)
      if (path !== '') files.push({ path, parts: [content] })
      else if (last !== undefined) last.parts.push(content)
      else throw malformedRequest('files.path', 'is empty in the first file')
      if (files.length > MAX_VOLUME_FILES) throw limitExceeded('files of a volume', MAX_VOLUME_FILES)
    }
  }
  if (rule === undefined) throw malformedRequest('volume', 'has no first message')
  const whole = files.map(({ path, parts }) => ({ path, content: concatBytes(...parts) }))
  checkVolumeFiles(whole)
  return { rule: rule.value, files: whole }
}

function headerOf({ kind, name }: SetVolumeRequest): { kind: ContentKind; name: string } {
  const known = KINDS.get(kind)
  if (known === undefined) throw malformedRequest('kind', `is ${kind}`)
  return { kind: known, name: parseVolumeName(name) }
}
