// What a container sees of an image: the entries of its layers, applied one upon the other as image-spec layer.md says,
// without touching a file system. Names of entries reach nothing but this tree.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "../catalogue.h"

namespace caisson {

struct Inode {
  EntryType type = EntryType::kDirectory;
  uint16_t mode = 0755;
  uint32_t uid = 0, gid = 0;
  int64_t mtime = 0;
  uint32_t mtime_ns = 0, major = 0, minor = 0;
  uint64_t size = 0;
  std::string_view link;
  uint16_t layer = 0;  // whose tar has the content
  uint16_t xattr_count = 0;
  uint32_t extent_count = 0;
  const uint8_t* xattrs = nullptr;
  const uint8_t* extents = nullptr;
  // For whoever writes the index.
  uint64_t place = 0;
  uint32_t links = 0;
};

struct Node {
  std::string_view name;
  Node* parent = nullptr;
  Inode* inode = nullptr;
  // Children of a directory, in no order.
  Node* first = nullptr;
  Node* next = nullptr;
  Node* previous = nullptr;
  uint32_t depth = 0;
};

// The children of all directories by name, a pointer for each: images have millions of them.
class ChildTable {
 public:
  Node* Find(const Node* parent, std::string_view name) const;
  // Nothing of that name is there.
  void Add(Node* node);
  void Remove(const Node* node);
  void Clear() { std::vector<Node*>().swap(slots_); }

 private:
  static size_t HashOf(const Node* parent, std::string_view name);
  void Grow();
  void Place(Node* node);

  // A power of two of them, or none; at most three quarters are or were in use.
  std::vector<Node*> slots_;
  size_t filled_ = 0;  // with those that were removed
};

class ImageTree {
 public:
  static constexpr uint64_t kMaxNodes = 2'000'000;

  ImageTree();

  // Upon what is there. Null, or what is wrong with which `entry`. The bytes behind the reader must stay.
  const char* Apply(CatalogueReader* layer, uint16_t number, std::string* entry);

  // After the last layer: what only `Apply` needs goes.
  void Finish() { children_.Clear(); }

  Node* root() { return root_; }
  size_t size() const { return nodes_.size(); }

 private:
  const char* Hide(const EntryView& entry);
  const char* Put(const EntryView& entry, uint16_t number);
  const char* Link(Node* parent, std::string_view name, std::string_view target);
  // The directory that holds the last component of `path`; missing ones are made if `make`. Null without an error when
  // something is missing and not to be made.
  const char* Folder(std::string_view path, bool make, Node** folder, std::string_view* name);
  const char* Walk(Node* from, std::string_view path, bool make, unsigned* links, Node** end);
  const char* Add(Node* parent, std::string_view name, Node** node);
  void Remove(Node* node);
  static bool Sane(std::string_view path);
  void Describe(const EntryView& entry, uint16_t number, Inode* inode);

  std::deque<Node> nodes_;
  std::deque<Inode> inodes_;
  ChildTable children_;
  // Left-overs of aufs, there for links to them, gone when the layer ends.
  std::vector<Node*> passing_;
  Node* root_;
};

}  // namespace caisson
