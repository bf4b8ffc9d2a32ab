// oneDNN's matmul primitive: 8 bits with 32-bit results, weights in the layout that the primitive asks for.
// Build: c++ -O2 -std=c++17 onednn.cpp -ldnnl -o onednn      Run: OMP_NUM_THREADS=2 ./onednn [--seconds S]
#include "serve.h"
#include <cstdint>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
using namespace dnnl;
using type = memory::data_type;
using tag = memory::format_tag;

struct Product {
  long m, k, n;
  bool is_signed;
  memory a, plain, packed, c;
  matmul primitive;
  stream queue;
  std::unordered_map<int, memory> arguments;

  Product(engine &cpu, bool is_signed, long m, long k, long n) : m(m), k(k), n(n), is_signed(is_signed), queue(cpu) {
    auto left = is_signed ? type::s8 : type::u8;
    memory::desc a_desc({m, k}, left, tag::ab), any({k, n}, type::s8, tag::any), b_desc({k, n}, type::s8, tag::ab),
        c_desc({m, n}, type::s32, tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    matmul::primitive_desc desc(cpu, a_desc, any, c_desc);
#else
    matmul::primitive_desc desc(matmul::desc(a_desc, any, c_desc), cpu);
#endif
    a = memory(a_desc, cpu), plain = memory(b_desc, cpu), packed = memory(desc.weights_desc(), cpu), c = memory(c_desc, cpu);
    for (auto *operand : {&a, &plain}) {
      auto *bytes = static_cast<uint8_t *>(operand->get_data_handle());
      for (size_t i = 0; i < operand->get_desc().get_size(); i++) bytes[i] = rand();
    }
    reorder(plain, packed).execute(queue, plain, packed);
    queue.wait();
    primitive = matmul(desc);
    arguments = {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, c}};
  }

  static void run(void *self) {
    auto *product = static_cast<Product *>(self);
    product->primitive.execute(product->queue, product->arguments);
    product->queue.wait();
  }

  bool right() const {
    long row = m / 2, column = n / 3, sum = 0;
    auto *x = static_cast<uint8_t *>(a.get_data_handle());
    auto *y = static_cast<int8_t *>(plain.get_data_handle());
    for (long i = 0; i < k; i++) {
      int code = x[row * k + i];
      sum += (is_signed ? static_cast<int8_t>(code) : code) * y[i * n + column];
    }
    return sum == static_cast<int32_t *>(c.get_data_handle())[row * n + column];
  }
};

int main(int argc, char **argv) {
  auto *version = dnnl_version();
  printf("onednn %d.%d.%d\n", version->major, version->minor, version->patch);
  fflush(stdout);
  double seconds = seconds_of(argc, argv);
  engine cpu(engine::kind::cpu, 0);
  std::unique_ptr<Product> product;
  char op[32];
  long m, k, n;
  while (request(op, &m, &k, &n)) {
    bool is_signed = !strcmp(op, "s8s8");
    if (!is_signed && strcmp(op, "u8s8")) { refuse("oneDNN has no such product"); continue; }
    try {
      if (!product || product->is_signed != is_signed || product->m != m || product->k != k || product->n != n) {
        product.reset();
        product = std::make_unique<Product>(cpu, is_signed, m, k, n);
      }
      double time = median(Product::run, product.get(), seconds);
      if (product->right()) answer(time); else refuse("wrong result");
    } catch (const error &problem) {
      refuse(problem.what());
    }
  }
}
