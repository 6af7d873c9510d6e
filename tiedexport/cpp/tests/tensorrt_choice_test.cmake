if(tensorrt_missing) # the library leaves it out then; which plan fits is tested everywhere
  target_sources(tensorrt_choice_test PRIVATE ../src/tensorrt/choice.cc)
endif()
