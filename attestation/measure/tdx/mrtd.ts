/**
 * MRTD of a TD that begins with this firmware: a hash over how the VMM builds its memory (Intel TDX module base
 * architecture, "TD measurement"; ABI reference, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND). The TD HOB, memory size, number of
 * CPUs and devices are no part of it.
 */
import { createHash, type Hash } from 'node:crypto'
import { PAGE_BYTES, type Tdvf, type TdvfSection } from './tdvf.ts'

/**
 * `page`: each page is added and then measured, as Linux's KVM_TDX_INIT_MEM_REGION does. `section`: all pages of a section
 * are added before any of them is measured, as hosts did before TDX was part of Linux.
 */
export type MeasureOrder = 'page' | 'section'

const CHUNK_BYTES = 256
const RECORD_BYTES = 128
const GPA_OFFSET = 16

/** 48 bytes. */
export function predictMrtd({ sections }: Tdvf, order: MeasureOrder = 'page'): Uint8Array {
  const hash = createHash('sha384')
  for (const section of sections) {
    const pages = section.memoryBytes / PAGE_BYTES
    for (let page = 0; page < pages; page++) {
      addPage(hash, section, page)
      if (order === 'page') extendPage(hash, section, page)
    }
    for (let page = 0; order === 'section' && page < pages; page++) extendPage(hash, section, page)
  }
  return new Uint8Array(hash.digest())
}

function addPage(hash: Hash, { augment, gpa }: TdvfSection, page: number): void {
  if (!augment) hash.update(record('MEM.PAGE.ADD', gpa + BigInt(page * PAGE_BYTES)))
}

function extendPage(hash: Hash, { extend, gpa, data }: TdvfSection, page: number): void {
  if (!extend) return
  for (let offset = page * PAGE_BYTES; offset < (page + 1) * PAGE_BYTES; offset += CHUNK_BYTES) {
    hash.update(record('MR.EXTEND', gpa + BigInt(offset)))
    const content = data.subarray(offset, offset + CHUNK_BYTES)
    hash.update(content)
    if (content.length < CHUNK_BYTES) hash.update(new Uint8Array(CHUNK_BYTES - content.length))
  }
}

function record(operation: string, gpa: bigint): Uint8Array {
  const bytes = new Uint8Array(RECORD_BYTES)
  bytes.set(new TextEncoder().encode(operation))
  new DataView(bytes.buffer).setBigUint64(GPA_OFFSET, gpa, true)
  return bytes
}
