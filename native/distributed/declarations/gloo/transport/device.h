// gloo::transport: the network. Held by pointer; what is called is the library's.
#pragma once

#include <exception>
#include <string>

namespace gloo::transport {

class Device;

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

/// A connection to one other process.
class Pair {
 public:
  virtual ~Pair();
};

namespace tcp {

/// What a Pair is, where the transport is TCP.
class Pair {
 public:
  /// Fails whoever waits for that process here, and ends the connection, on which it fails there too.
  const std::exception_ptr signalExceptionExternal(const std::string& message);
};

}  // namespace tcp

}  // namespace gloo::transport
