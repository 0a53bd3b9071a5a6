# Every target of ours links this; code of others does not.
add_library(detrx_warnings INTERFACE)
target_compile_options(
  detrx_warnings
  INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion $<$<BOOL:${DETRX_WERROR}>:-Werror>>)

# Sanitizers must see the whole program, so they are no property of a target.
if(DETRX_SANITIZE)
  add_compile_options(-fsanitize=${DETRX_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${DETRX_SANITIZE})
endif()
