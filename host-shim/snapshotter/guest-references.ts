/**
 * Which images a node leaves to its guests. containerd 1.6 has one snapshotter for all runtimes, so it is the image's name
 * that decides; later versions choose a snapshotter by runtime, and then every image is one of these.
 */
import { UsageError } from '#protocol/errors'

/** A registry, a path below it, or one repository: "registry.example/shop/" or "registry.example/shop/web". */
export type ReferencePattern = string

const PATTERN = /^(?:\*|[a-z0-9.-]+(?::[0-9]{1,5})?(?:\/[a-z0-9._-]+)*\/?)$/

/** @throws UsageError ERR_GUEST_IMAGES */
export function checkPatterns(patterns: readonly ReferencePattern[]): void {
  for (const pattern of patterns) {
    if (PATTERN.test(pattern)) continue
    throw new UsageError('ERR_GUEST_IMAGES', `${JSON.stringify(pattern)} names no images`, {
      hint: 'Write a registry, a path or a repository without tag, such as registry.example/shop/; * stands for all',
    })
  }
}

/** @param reference as containerd normalised it: "docker.io/library/nginx:1" */
export function isGuestImage(reference: string, patterns: readonly ReferencePattern[]): boolean {
  const [name = ''] = reference.split('@')
  const colon = name.indexOf(':', name.lastIndexOf('/') + 1)
  const repository = colon < 0 ? name : name.slice(0, colon)
  return patterns.some((pattern) => {
    if (pattern === '*') return true
    const folder = pattern.endsWith('/') ? pattern : `${pattern}/`
    return repository === pattern || repository.startsWith(folder)
  })
}
