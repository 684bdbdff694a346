/** Messages inside messages, the way containerd names them: the bare name, without the usual host in front. */
import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt'

export function packAny<Schema extends DescMessage>(schema: Schema, message: MessageInitShape<Schema>): Any {
  return create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, create(schema, message)) })
}
