"""Networks that look at videos, with made-up weights: what they do to frames is told, and no pickle is read."""

import re

import numpy as np
import pytest
import torch
from photographs import SPOILED, noisy, shots
from safetensors.torch import save_file

from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.evaluation import footage, vbench
from video_gen.evaluation.features import cover, drawn, of_vae, open_features, pick_frames, picked
from video_gen.evaluation.lpips import LAYERS, LPIPS
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def clips():
    return shots(4)


def opened(name, frames=9, vae=None):
    return open_features(str(name), vae, CPU, frames)


# -------------------- without weights of others


def test_drawn_features_are_the_same_everywhere_and_say_what_they_are_not(clips):
    one, again, other = drawn(), drawn(), drawn(seed=1)
    assert np.array_equal(one(clips), again(clips)) and one.weights == again.weights != other.weights
    assert one(clips).shape == (4, 32) and one(clips).dtype == np.float64
    assert np.allclose(one(clips[2:]), one(clips)[2:], atol=1e-6)
    assert "not FVD" in one.protocol["about"] and not np.allclose(one(clips), other(clips))
    assert one(clips[:, :1]).shape == (4, 32)


def test_features_of_a_vae_are_its_latents_pooled(clips):
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=4, widths=(16,), stem=4)).eval()
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    found = opened("vae", vae=vae)
    assert found(clips).shape == (4, 8) and found.weights == of_vae(vae).weights
    with pytest.raises(ConfigError, match="give --model or --vae"):
        opened("vae")


def test_frames_are_picked_evenly_and_pictures_are_covered():
    video = torch.arange(17.0).view(1, 1, 17, 1, 1)
    assert pick_frames(video, 5).flatten().tolist() == [0, 3, 6, 9, 12]
    assert pick_frames(video, 16).flatten().tolist() == list(range(16))
    assert pick_frames(video[:, :, :3], 5).flatten().tolist() == [0, 0, 1, 2, 2]
    assert (picked(16, 33), picked(5, 3)) == ("16 of 33, one in 2", "5, stretched from 3")
    wide = torch.zeros(1, 3, 2, 20, 40)
    wide[..., 10:30] = 1
    assert cover(wide, 20).equal(torch.ones(1, 3, 2, 20, 20))
    assert cover(torch.rand(2, 3, 4, 48, 64), 24).shape == (2, 3, 4, 24, 24)


# -------------------- TorchScript


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(3, 5, (4, 32, 32), (4, 32, 32))

    def forward(self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False):
        if rescale or resize or not return_features:
            x = x * 0
        return self.layer(x).mean((2, 3, 4))


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return x.mean((2, 3, 4))


def test_i3d_is_asked_for_features_of_what_was_scaled_here(tmp_path):
    clips = shots(2, frames=12)
    torch.manual_seed(0)
    network = Scripted()
    torch.jit.script(network).save(str(tmp_path / "i3d.pt"))
    found = opened(tmp_path / "i3d.pt", frames=12)
    video = torch.from_numpy(clips).movedim(-1, 1).float() / 127.5 - 1
    assert np.allclose(found(clips), network(cover(video, 224), False, False, True).detach().numpy(), atol=1e-5)
    assert found.protocol["size"].startswith("224x224") and len(found.weights) == 16
    torch.jit.script(Plain()).save(str(tmp_path / "plain.pt"))
    assert opened(tmp_path / "plain.pt", frames=12)(clips).shape == (2, 3)


def test_what_is_no_torchscript_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        opened(tmp_path / "none.pt", frames=12)
    (tmp_path / "bad.pt").write_bytes(b"bad")
    with pytest.raises(DataError, match="no TorchScript"):
        opened(tmp_path / "bad.pt", frames=12)
    with pytest.raises(ShapeError, match="takes 10 frames or more, and a clip has 9"):
        opened(tmp_path / "bad.pt", frames=9)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "other.pt"))
    with pytest.raises(DataError, match="the network takes no"):
        opened(tmp_path / "other.pt", frames=12)(shots(1, frames=12))


# -------------------- transformers


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small models of each kind, with drawn weights."""
    transformers = pytest.importorskip("transformers")
    place, small = tmp_path_factory.mktemp("models"), dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    looks = dict(**small, intermediate_size=32, image_size=28, patch_size=14)
    made = {
        "videomae": transformers.VideoMAEModel(
            transformers.VideoMAEConfig(**small, intermediate_size=32, image_size=32, num_frames=4)
        ),
        "vjepa": transformers.VJEPA2Model(
            transformers.VJEPA2Config(
                **small,
                crop_size=32,
                frames_per_clip=64,
                pred_hidden_size=16,
                pred_num_attention_heads=2,
                pred_num_hidden_layers=1,
            )
        ),
        "dino": transformers.Dinov2Model(transformers.Dinov2Config(**looks)),
        "clip": transformers.CLIPModel(
            transformers.CLIPConfig(
                vision_config=looks | {"projection_dim": 8},
                text_config=dict(**small, intermediate_size=32, vocab_size=50, projection_dim=8),
                projection_dim=8,
            )
        ),
    }
    for name, model in made.items():
        model.save_pretrained(place / name)
    return place


def test_video_networks_take_their_own_frames_and_sizes(folders, clips):
    mae, jepa = opened(folders / "videomae"), opened(folders / "vjepa")
    assert mae(clips).shape == jepa(clips).shape == (4, 16)
    assert mae.protocol["frames"] == "4 of 9, one in 2" and jepa.protocol["frames"] == "8 of 9, one in 1"
    assert mae.protocol["size"].startswith("32x32") and mae.weights != jepa.weights
    assert np.array_equal(mae(clips), opened(folders / "videomae")(clips))
    turned = clips[:, ::-1].copy()
    assert not np.allclose(mae(turned), mae(clips), atol=1e-5)  # the order of frames counts


def test_colours_are_those_that_the_network_was_trained_on(folders, clips):
    before = opened(folders / "videomae")(clips)
    file = folders / "videomae" / "preprocessor_config.json"
    file.write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}')
    try:
        assert not np.allclose(opened(folders / "videomae")(clips), before, atol=1e-3)
    finally:
        file.unlink()


@pytest.mark.parametrize("name", ["dino", "clip"])
def test_consistency_is_one_for_a_still_and_falls_with_drift_and_noise(folders, clips, name):
    (foreign,) = footage.open_looks([str(folders / name)], CPU)

    def of(videos):
        return np.mean([vbench.consistency(footage.look(video, foreign, CPU)) for video in videos])

    still = np.repeat(clips[:, :1], 9, axis=1)
    assert of(still) == pytest.approx(1, abs=1e-5)
    drift = [
        of(spoil(still, much)) for spoil, steps in SPOILED.items() if spoil.__name__ == "drifted" for much in steps
    ]
    assert of(still) > drift[0] > drift[1] > drift[2]
    assert of(noisy(still, 30)) < of(noisy(still, 5)) < 1
    assert of(clips) < 1


def test_other_models_and_pickles_are_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="is a dinov2; takes videomae, vjepa2"):
        opened(folders / "dino")
    with pytest.raises(ConfigError, match=r"--consistency .* is a videomae; takes dinov2"):
        footage.open_looks([str(folders / "videomae")], CPU)
    with pytest.raises(DataError, match=re.escape("no such folder, and no OWNER/NAME of the Hub")):
        opened(tmp_path / "a" / "b" / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no config"):
        opened(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text((folders / "videomae" / "config.json").read_text())
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no \.safetensors; pickles are not read"):
        opened(tmp_path / "empty")


# -------------------- LPIPS


def weights_of_lpips(trunk="net.slice{slice}.{at}", seed=0):
    """Keys as the package has them, or as AlexNet alone has."""
    torch.manual_seed(seed)
    state = {}
    for place, (at, (a, b, k, _, _)) in enumerate(LAYERS.items()):
        name = trunk.format(slice=place + 1, at=at)
        state[f"{name}.weight"], state[f"{name}.bias"] = (
            torch.randn(b, a, k, k) * (2 / (a * k * k)) ** 0.5,
            torch.zeros(b),
        )
        state[f"lin{place}.model.1.weight"] = torch.rand(1, b, 1, 1)
    return state


def test_lpips_takes_the_users_weights_under_either_names(tmp_path):
    save_file(weights_of_lpips(), tmp_path / "a.safetensors")
    save_file(weights_of_lpips("features.{at}") | {"classifier.1.bias": torch.zeros(2)}, tmp_path / "b.safetensors")
    a, b = (LPIPS.from_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    x, y = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    assert torch.equal(a(x, y), b(x, y)) and a.name == "lpips" and "weights" in a.about
    assert (a(x, x) == 0).all() and torch.allclose(a(x, y), a(y, x)) and (a(x, y) > 0).all()


def test_lpips_is_the_formula_of_the_paper(tmp_path):
    state = weights_of_lpips()
    save_file(state, tmp_path / "a.safetensors")
    x, y = torch.rand(2, 1, 3, 70, 90) * 2 - 1
    total, pair = torch.zeros(()), [x, y]
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    pair = [(p - shift) / scale for p in pair]
    for place, (at, (_, _, _, stride, padding)) in enumerate(LAYERS.items()):
        if at in (3, 6):
            pair = [torch.nn.functional.max_pool2d(p, 3, 2) for p in pair]
        weight = state[f"net.slice{place + 1}.{at}.weight"]
        pair = [torch.relu(torch.nn.functional.conv2d(p, weight, stride=stride, padding=padding)) for p in pair]
        units = [p / (p.norm(dim=1, keepdim=True) + 1e-10) for p in pair]
        total = total + (state[f"lin{place}.model.1.weight"] * (units[0] - units[1]) ** 2).sum(1).mean()
    assert LPIPS.from_file(tmp_path / "a.safetensors")(x, y).item() == pytest.approx(total.item(), rel=1e-5)


def test_lpips_of_no_weights_is_called_otherwise():
    one, again = LPIPS.drawn(), LPIPS.drawn()
    x, y = torch.rand(2, 2, 3, 16, 16) * 2 - 1  # smaller than the network takes
    assert torch.equal(one(x, y), again(x, y)) and one.name == "drawn_lpips" and "not LPIPS" in one.about


def test_other_weights_for_lpips_are_one_line(tmp_path):
    (tmp_path / "alex.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"only \.safetensors is read, since pickles run code; convert it once"):
        LPIPS.from_file(tmp_path / "alex.pth")
    state = weights_of_lpips()
    missing = {key: x for key, x in state.items() if key != "lin2.model.1.weight"}
    for bad, words in (
        (missing, "lin2.model.1.weight is missing"),
        (state | {"vgg": torch.zeros(1)}, "vgg is none of its keys"),
    ):
        save_file(bad, tmp_path / "bad.safetensors")
        with pytest.raises(DataError, match=words):
            LPIPS.from_file(tmp_path / "bad.safetensors")
