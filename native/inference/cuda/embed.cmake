# Writes the text of what NVRTC compiles into a header, as string literals for kernels.cpp:
#   cmake -D OUT=... -D KERNELS=kernels.cu -D TASKS=tasks.h -P embed.cmake
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
file(WRITE ${OUT} "#pragma once\nnamespace senet::inference::cuda {\n${kernels}${tasks}}\n")
