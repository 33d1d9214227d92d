// The group of processes that this one belongs to, and networks that it trains with them.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value distributed_absence(Environment& environment, const Napi::CallbackInfo& info);
/// A job that occupies no thread of the executor while it waits for the other processes.
Napi::Value connect_group(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value stop_connecting(Environment& environment, const Napi::CallbackInfo& info);
// Collectives: jobs that begin in the order of their calls, and occupy no thread of the executor while they
// wait.
Napi::Value group_all_reduce(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value group_broadcast(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value group_all_gather(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value group_barrier(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value group_fail(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value destroy_group(Environment& environment, const Napi::CallbackInfo& info);

/// Ends the group's connections, so that nobody waits for other processes, if it is this owner's; anybody's
/// of null. With a reason the other processes are told it first.
void close_group(const void* owner, const std::string& reason = "");
/// Closes the group if `value` is one, and says so.
bool discard_group(const Napi::Value& value);

// Jobs that block their thread while they wait: the network's own forward and backward do too.
Napi::Value create_data_parallel(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value data_parallel_begin(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value data_parallel_end(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value data_parallel_detach(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
