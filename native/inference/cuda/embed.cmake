# Writes the text of what NVRTC compiles into a header, as string literals for kernels.cpp, and a digest of that and
# of how it is launched:
#   cmake -D OUT=... -D KERNELS=kernels.cu -D TASKS=tasks.h -D LAUNCHES=kernels.cpp -P embed.cmake
# A compiler need not take a literal of more than 65,536 characters, so each is many, beside each other.
set(CHUNK 16000)

function(literal name file result)
  file(READ ${file} text)
  string(LENGTH "${text}" length)
  set(literals "")
  set(at 0)
  while(at LESS length)
    string(SUBSTRING "${text}" ${at} ${CHUNK} part)
    string(APPEND literals "R\"__(${part})__\"\n")
    math(EXPR at "${at} + ${CHUNK}")
  endwhile()
  set(${result} "inline constexpr char ${name}[] =\n${literals};\n" PARENT_SCOPE)
endfunction()

literal(kKernelsText ${KERNELS} kernels)
literal(kTasksText ${TASKS} tasks)
set(digests "")
foreach(file ${KERNELS} ${TASKS} ${LAUNCHES})
  file(SHA256 ${file} digest)
  string(APPEND digests ${digest})
endforeach()
string(SHA256 version "${digests}")
string(SUBSTRING ${version} 0 16 version)
set(version "inline constexpr char kKernelsVersion[] = \"${version}\";\n")
file(WRITE ${OUT} "#pragma once\nnamespace senet::inference::cuda {\n${kernels}${tasks}${version}}\n")
