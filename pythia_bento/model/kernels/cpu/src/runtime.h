// What the kernels need of a C++ library, for builds that link none: zig has its own as source, and
// to compile that takes longer than everything else of a first start.
//
// Memory comes from malloc, as in those libraries. The names with two underscores are what the
// compiler calls (Itanium C++ ABI, 3.3.6) and what libc++'s headers call without exceptions; a
// library that needed another name would not be linked.
#pragma once

#ifdef PYTHIA_LINKS_NO_CXX

#include <cstdlib>
#include <new>

void* operator new(size_t size) {
  void* block = malloc(size ? size : 1);
  if (!block) abort();
  return block;
}
void operator delete(void* block) noexcept { free(block); }
void operator delete(void* block, size_t) noexcept { free(block); }

namespace std {
inline namespace __1 {
[[noreturn]] void __libcpp_verbose_abort(const char*, ...) noexcept { abort(); }
}  // namespace __1
}  // namespace std

extern "C" {
int __cxa_thread_atexit_impl(void (*)(void*), void*, void*);  // glibc's, since 2.18
int __cxa_thread_atexit(void (*end)(void*), void* object, void* library) {
  return __cxa_thread_atexit_impl(end, object, library);
}
}

#endif
