/**
 * The launch digest as the SEV-SNP firmware accumulates it, page by page (AMD 56860, SNP_LAUNCH_UPDATE, table "PAGE_INFO"):
 * each page's PAGE_INFO, which begins with the digest so far, is hashed into the next digest.
 */
import { hash } from 'node:crypto'
import { PAGE_BYTES } from './sev-firmware.ts'

export const DIGEST_BYTES = 48
const PAGE_INFO_BYTES = 0x70
/** Where the firmware pretends that save areas lie: their real addresses are the host's choice. */
const VMSA_GPA = 0xffff_ffff_f000n
const NO_CONTENTS = new Uint8Array(DIGEST_BYTES)

/** PAGE_TYPE. The contents of normal pages and save areas are measured, of the others only type and address. */
const PAGE_TYPE = { normal: 1, vmsa: 2, zero: 3, unmeasured: 4, secrets: 5, cpuid: 6 } as const

export type UnreadPageType = 'zero' | 'unmeasured' | 'secrets' | 'cpuid'

export class LaunchContext {
  #digest: Uint8Array

  /** @param seed digest after pages that were measured before, 48 bytes; by default nothing was */
  constructor(seed: Uint8Array = NO_CONTENTS) {
    this.#digest = seed.slice()
  }

  /** A copy of the digest so far. */
  get digest(): Uint8Array {
    return this.#digest.slice()
  }

  /** @param data whole pages */
  addPages(gpa: number, data: Uint8Array): void {
    for (let offset = 0; offset < data.length; offset += PAGE_BYTES) {
      this.#add(PAGE_TYPE.normal, BigInt(gpa + offset), sha384(data.subarray(offset, offset + PAGE_BYTES)))
    }
  }

  /** @param bytes whole pages */
  addUnreadPages(type: UnreadPageType, gpa: number, bytes: number): void {
    for (let offset = 0; offset < bytes; offset += PAGE_BYTES) {
      this.#add(PAGE_TYPE[type], BigInt(gpa + offset), NO_CONTENTS)
    }
  }

  addSaveArea(contents: Uint8Array): void {
    this.addSaveAreaDigest(sha384(contents))
  }

  /** @param digest SHA-384 of the save area */
  addSaveAreaDigest(digest: Uint8Array): void {
    this.#add(PAGE_TYPE.vmsa, VMSA_GPA, digest)
  }

  #add(type: number, gpa: bigint, contents: Uint8Array): void {
    const info = new Uint8Array(PAGE_INFO_BYTES) // IMI_PAGE and the permissions of lower VMPLs stay 0
    info.set(this.#digest, 0)
    info.set(contents, 0x30)
    const view = new DataView(info.buffer)
    view.setUint16(0x60, PAGE_INFO_BYTES, true)
    view.setUint8(0x62, type)
    view.setBigUint64(0x68, gpa, true)
    this.#digest = sha384(info)
  }
}

function sha384(bytes: Uint8Array): Uint8Array {
  return hash('sha384', bytes, 'buffer')
}
