# Packer: an AMI whose nodes serve models from the first boot on, without a registry.
#
#   packer init systemd/images && packer build -var package=build/package/headrace_0.1.0_amd64.deb -var 'images=["registry.example.com/models/llama-8b:v1"]' systemd/images
#
# With credentials: -var docker_config=$HOME/.docker/config.json. The file is on the builder's memory file system while it bakes, and is no part of the AMI.
packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/amazon", version = ">= 1.3" }
  }
}

variable "images" { type = list(string) }
variable "package" { type = string }
variable "docker_config" {
  type    = string
  default = "/dev/null"
}
variable "source_ami" { type = string }
variable "instance_type" {
  type    = string
  default = "c6in.4xlarge" # the network and the cores decide how long it takes
}
variable "volume_gib" {
  type    = number
  default = 200 # what the models take uncompressed, and a fifth more
}

source "amazon-ebs" "node" {
  source_ami    = var.source_ami
  instance_type = var.instance_type
  ssh_username  = "admin"
  ami_name      = "headrace-node-{{timestamp}}"
  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = var.volume_gib
    volume_type           = "gp3"
    throughput            = 1000
    iops                  = 16000
    delete_on_termination = true
  }
}

build {
  sources = ["source.amazon-ebs.node"]
  provisioner "file" {
    sources     = [var.package, "${path.root}/bake-node"]
    destination = "/tmp/"
  }
  provisioner "shell" {
    inline = ["sudo install -d -m 700 /run/bake", "sudo install -m 600 -o $(id -u) /dev/null /run/bake/config.json && sudo chmod 711 /run/bake"]
  }
  provisioner "file" {
    source      = var.docker_config
    destination = "/run/bake/config.json"
  }
  provisioner "shell" {
    inline = [
      "sudo sh -c 'test -s /run/bake/config.json || echo {} > /run/bake/config.json'",
      "sudo bash /tmp/bake-node --package /tmp/${basename(var.package)} --docker-config /run/bake/config.json ${join(" ", var.images)}",
      "sudo rm -rf /run/bake /tmp/bake-node /tmp/${basename(var.package)}",
    ]
  }
}
