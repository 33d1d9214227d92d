/**
 * What the reflection service tells of proto files. protobufjs calls the entry of the map `parameters` 'Parameters'; protoc,
 * and so the languages that check it (Go's, of which grpcurl is made), 'ParametersEntry'.
 */
import { createRequire } from 'node:module';

import type * as protoLoader from '@grpc/proto-loader';

interface MessageDescriptor {
  name: string;
  readonly field: readonly { typeName: string }[];
  readonly nestedType: readonly MessageDescriptor[];
  readonly options: { readonly mapEntry: boolean } | null;
}

interface FileDescriptor {
  readonly messageType: readonly MessageDescriptor[];
}

/** Of protobufjs, which reads descriptors for `@grpc/reflection`. */
interface Descriptors {
  readonly FileDescriptorProto: {
    decode(bytes: Uint8Array): FileDescriptor;
    encode(file: FileDescriptor): { finish(): Uint8Array };
  };
}

/** The definition with files as protoc would describe them; of maps whose fields are called by one word. */
export function asProtocDescribes(definition: protoLoader.PackageDefinition): protoLoader.PackageDefinition {
  const { FileDescriptorProto } = createRequire(require.resolve('@grpc/reflection'))(
    'protobufjs/ext/descriptor',
  ) as Descriptors;
  const written = new Map<Buffer, Buffer>();
  const rewrite = (bytes: Buffer): Buffer => {
    const file = FileDescriptorProto.decode(bytes);
    file.messageType.forEach(renameEntries);
    return Buffer.from(FileDescriptorProto.encode(file).finish());
  };
  return Object.fromEntries(
    Object.entries(definition).map(([name, one]): [string, protoLoader.AnyDefinition] => {
      const { fileDescriptorProtos: given } = one as { fileDescriptorProtos?: readonly Buffer[] };
      if (!Array.isArray(given)) return [name, one];
      const files = (given as readonly Buffer[]).map((bytes) => {
        const done = written.get(bytes) ?? rewrite(bytes);
        written.set(bytes, done);
        return done;
      });
      return [name, { ...one, fileDescriptorProtos: files } as protoLoader.AnyDefinition];
    }),
  );
}

function renameEntries({ field: fields, nestedType: nested }: MessageDescriptor): void {
  for (const message of nested) {
    renameEntries(message);
    if (message.options?.mapEntry !== true) continue;
    const { name } = message;
    message.name = `${name}Entry`;
    for (const field of fields) if (field.typeName === name) field.typeName = message.name;
  }
}
