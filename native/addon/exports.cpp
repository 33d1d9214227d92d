// The export table: everything that lib/binding.ts types, and nothing else. Runs once for each environment.
#include <napi.h>

#include <ATen/Context.h>

#include "addon/calibration.h"
#include "addon/compiled.h"
#include "addon/cuda.h"
#include "addon/distributed.h"
#include "addon/environment.h"
#include "addon/files.h"
#include "addon/images.h"
#include "addon/modules.h"
#include "addon/operators.h"
#include "addon/optimizers.h"
#include "addon/portable.h"
#include "addon/process.h"
#include "addon/tensors.h"
#include "addon/trace.h"
#include "runtime/allocator.h"
#include "runtime/cuda_library.h"
#include "runtime/threads.h"

namespace senet::addon {
namespace {

// Process-wide preparations before any tensor; the CUDA library is loaded since LibTorch was asked for its
// version. Safe to repeat.
void prepare_process() {
  static const bool prepared = [] {
    runtime::install_cpu_allocator();
    // NNPACK refuses many processors with a warning at the first convolution; oneDNN serves all of them.
    at::globalContext().setUserEnabledNNPACK(false);
    return true;
  }();
  (void)prepared;
}

template <Napi::Value (*function)(Environment&, const Napi::CallbackInfo&)>
void add(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<guarded<function>>(exports.Env(), name));
}

Napi::Object initialize_addon(Napi::Env env, Napi::Object exports) {
  const std::string version = runtime::loaded_libtorch_version();
  exports.Set("libtorchVersion", version);
  exports.Set("builtWithLibtorch", SENET_BUILT_WITH_LIBTORCH);
  if (version != SENET_BUILT_WITH_LIBTORCH) {
    return exports;  // lib/native.ts refuses it with the right error
  }

  prepare_process();
  // This environment's JavaScript thread runs tensor methods itself, with one thread: the others serve the
  // executor.
  runtime::use_threads(1);
  env.SetInstanceData(new Environment(env));

  add<initialize>(exports, "initialize");
  add<configure>(exports, "configure");
  add<configuration>(exports, "configuration");
  add<manual_seed>(exports, "manualSeed");
  add<generator_state>(exports, "generatorState");
  add<set_generator_state>(exports, "setGeneratorState");
  add<memory>(exports, "memory");
  add<cuda_device_count>(exports, "cudaDeviceCount");
  add<cuda_state>(exports, "cudaState");
  add<cuda_device>(exports, "cudaDevice");
  add<cuda_memory>(exports, "cudaMemory");
  add<empty_cuda_cache>(exports, "emptyCudaCache");
  add<synchronize_cuda>(exports, "synchronizeCuda");
  add<allow_tf32>(exports, "allowTF32");
  add<set_allow_tf32>(exports, "setAllowTF32");
  add<libtorch_config>(exports, "libtorchConfig");
  add<drain>(exports, "drain");
  add<cancel>(exports, "cancel");
  add<wait>(exports, "wait");
  add<after_queued>(exports, "afterQueued");
  add<discard>(exports, "discard");

  add<from_typed_array>(exports, "fromTypedArray");
  add<copy_bytes>(exports, "copyBytes");
  add<to_typed_array>(exports, "toTypedArray");
  add<to_typed_array_later>(exports, "toTypedArrayLater");
  add<tensor_info>(exports, "tensorInfo");
  add<known_range>(exports, "knownRange");
  add<requires_grad>(exports, "requiresGrad");
  add<set_requires_grad>(exports, "setRequiresGrad");
  add<grad>(exports, "grad");
  add<set_grad>(exports, "setGrad");
  add<clear_grads>(exports, "clearGrads");
  add<dispose_tensor_handle>(exports, "disposeTensor");
  add<backward>(exports, "backward");
  add<gradients>(exports, "gradients");

  add<call_operator>(exports, "callOperator");
  add<call_operator_async>(exports, "callOperatorAsync");
  add<list_operators>(exports, "listOperators");
  add<operator_schemas>(exports, "operatorSchemas");

  add<resize_images>(exports, "resizeImages");
  add<resize_images_async>(exports, "resizeImagesAsync");
  add<can_prepare_images>(exports, "canPrepareImages");
  add<prepare_image>(exports, "prepareImage");

  add<create_module>(exports, "createModule");
  add<module_node>(exports, "moduleNode");
  add<module_forward>(exports, "moduleForward");
  add<module_record>(exports, "moduleRecord");
  add<sync_batch_norms>(exports, "syncBatchNorms");
  add<replace_module>(exports, "replaceModule");
  add<set_training>(exports, "setTraining");
  add<is_training>(exports, "isTraining");
  add<module_to>(exports, "moduleTo");
  add<module_load>(exports, "moduleLoad");
  add<assert_idle>(exports, "assertIdle");
  add<dispose_module>(exports, "disposeModule");

  add<distributed_absence>(exports, "distributedAbsence");
  add<connect_group>(exports, "connectGroup");
  add<stop_connecting>(exports, "stopConnecting");
  add<group_all_reduce>(exports, "groupAllReduce");
  add<group_broadcast>(exports, "groupBroadcast");
  add<group_all_gather>(exports, "groupAllGather");
  add<group_barrier>(exports, "groupBarrier");
  add<group_fail>(exports, "groupFail");
  add<destroy_group>(exports, "destroyGroup");
  add<create_data_parallel>(exports, "createDataParallel");
  add<data_parallel_begin>(exports, "dataParallelBegin");
  add<data_parallel_end>(exports, "dataParallelEnd");
  add<data_parallel_detach>(exports, "dataParallelDetach");
  add<permutation>(exports, "permutation");

  add<create_optimizer>(exports, "createOptimizer");
  add<optimizer_step>(exports, "optimizerStep");
  add<optimizer_state>(exports, "optimizerState");
  add<set_optimizer_state>(exports, "setOptimizerState");
  add<clip_gradients>(exports, "clipGradients");
  add<unscale_gradients>(exports, "unscaleGradients");
  add<average_into>(exports, "averageInto");

  add<compile_module>(exports, "compileModule");
  add<compiled_backend>(exports, "compiledBackend");
  add<trace_input>(exports, "traceInput");
  add<trace_module>(exports, "traceModule");
  add<trace_operator>(exports, "traceOperator");
  add<compile_traced>(exports, "compileTraced");
  add<compiled_info>(exports, "compiledInfo");
  add<compiled_forward>(exports, "compiledForward");
  add<compiled_answer>(exports, "compiledAnswer");
  add<compiled_explain>(exports, "compiledExplain");
  add<compiled_profile>(exports, "compiledProfile");
  add<dispose_compiled>(exports, "disposeCompiled");
  add<begin_calibration>(exports, "beginCalibration");
  add<begin_traced_calibration>(exports, "beginTracedCalibration");
  add<calibration_observe>(exports, "calibrationObserve");
  add<calibration_finish>(exports, "calibrationFinish");
  add<calibration_restore>(exports, "calibrationRestore");
  add<compiled_quantization>(exports, "compiledQuantization");
  add<compiled_tensors>(exports, "compiledTensors");
  add<dispose_calibration>(exports, "disposeCalibration");
  add<describe_module>(exports, "describeModule");
  add<describe_traced>(exports, "describeTraced");

  add<read_tensors>(exports, "readTensors");
  add<map_tensors>(exports, "mapTensors");
  add<modified_time>(exports, "modifiedTime");
  add<read_bytes>(exports, "readBytes");
  add<tensors_from_bytes>(exports, "tensorsFromBytes");
  add<storage_info>(exports, "storageInfo");
  add<storage_bytes>(exports, "storageBytes");
  return exports;
}

}  // namespace
}  // namespace senet::addon

static Napi::Object initialize_module(Napi::Env env, Napi::Object exports) {
  try {
    return senet::addon::initialize_addon(env, exports);
  } catch (const Napi::Error& error) {
    senet::addon::raise(env, error);
    return exports;
  }
}

NODE_API_MODULE(senet_torch, initialize_module)
