/** Every bound of the agent in one place. A host that exceeds one gets an error, never memory. */

export const MAX_CONTAINERS = 64
/** Running or not yet deleted, besides the first process. */
export const MAX_EXECS_PER_CONTAINER = 32
/** Creations at once; the rest wait their turn. */
export const MAX_CONCURRENT_CREATES = 2
export const MAX_RPC_STREAMS = 128
export const MAX_RPC_CONNECTIONS = 16
/** Requests being served on one connection, bytes together: eight of the largest. */
export const MAX_RPC_IN_FLIGHT_BYTES: number = 2 * 1024 * 1024
export const MAX_RAW_STREAMS = 512
export const MAX_TICKETS = 64
export const TICKET_LIFETIME_MS = 30_000
/** From accepting a raw stream to its whole ticket line. */
export const TICKET_LINE_TIMEOUT_MS = 10_000
/** Output of a process kept for logs and for readers that come late. */
export const OUTPUT_RING_BYTES: number = 1024 * 1024
export const MAX_EVENT_HISTORY = 512
export const MAX_EVENT_WATCHERS = 16
export const MAX_REASONS = 256
/** Reasons for the tenant's verifier: so many wait, so many are told at once, then one in this time. */
export const MAX_WAITING_REPORTS = 32
export const REPORT_BURST = 8
export const REPORT_INTERVAL_MS = 15_000
/** So long a guest that comes to nothing waits for its verifier to have heard why. */
export const LAST_REPORT_MS = 5000
/** Sealed reasons in one answer: as many as fit into a message with room to spare. */
export const MAX_REASONS_PER_ANSWER = 16
/** Progress of one layer is told at most this often. */
export const PROGRESS_INTERVAL_MS = 200

export const MAX_INTERFACES = 8
export const MAX_ADDRESSES_PER_INTERFACE = 16
export const MAX_ROUTES_PER_INTERFACE = 64
export const MAX_NAMESERVERS = 8
export const MAX_SEARCHES = 32
export const MAX_RESOLVER_OPTIONS = 16
export const MAX_SYSCTLS = 64
export const MAX_HOST_ENTRIES = 64
export const MAX_ARGS = 1024
export const MAX_ENV = 1024
/** Arguments or environment together, characters. */
export const MAX_ARGS_CHARS: number = 128 * 1024
export const MAX_MOUNTS = 64
export const MAX_GROUPS = 64
export const MAX_DEVICES = 16
/** Contents of volumes on their way at the same time; each holds at most `MAX_VOLUME_BYTES`. */
export const MAX_VOLUME_UPLOADS = 4
/** The end of a termination message that is kept: what the kubelet reads of it. */
export const TERMINATION_MESSAGE_BYTES = 4096
/** What the file may hold while the container runs. */
export const TERMINATION_FILE_BYTES: number = 64 * 1024

/** Memory that containers cannot take: the agent, its tools and the kernel's own. */
export const RESERVED_MEMORY_BYTES: number = 160 * 1024 * 1024
export const MAX_PASSWD_BYTES: number = 1024 * 1024
/** A sealed reference of an image. */
export const MAX_REFERENCE_BYTES = 1024
/** One secret of the verifier. */
export const MAX_SECRET_BYTES: number = 1024 * 1024
/** One secret in the environment: the kernel takes 128 KiB for a variable (MAX_ARG_STRLEN). */
export const MAX_SECRET_ENV_BYTES: number = 64 * 1024
export const MAX_PROC_FILE_BYTES: number = 64 * 1024

/** How long a stream to a port waits for somebody to listen there, and how often it looks. */
export const PORT_PATIENCE_MS = 10_000
export const PORT_RETRY_MS = 100

/** From SIGTERM to SIGKILL when the sandbox shuts down. */
export const SHUTDOWN_GRACE_MS = 10_000
/** From SIGKILL to giving up on an orderly unmount. */
export const SHUTDOWN_KILL_MS = 5_000
