/** `senet-torch/grpc`: the Open Inference Protocol over gRPC, for which gRPC's packages have to be installed. */
export { startGrpcServer, type GrpcServer, type GrpcServerOptions } from './serve/grpc-service';
